# The filter alone, for what pulls wasm modules as images: the "compat" variant of the wasm image specification, which is one
# layer with `plugin.wasm`. `make images` fills the context.
FROM scratch
LABEL org.opencontainers.image.title="attache-filter" \
      org.opencontainers.image.description="Attaché's proxy-wasm filter for Envoy"
COPY attache_filter.wasm /plugin.wasm
