# The filter alone, for what pulls wasm modules as images. `make images` fills the context.
FROM scratch
COPY attache_filter.wasm /plugin.wasm
