# The broker, with the filter beside it for the Envoy that it hands it to. `make images` fills the context: `attache`
# and `attache_filter.wasm`. It runs as any user, with a root filesystem that nobody writes to.
ARG BASE=debian:bookworm-slim
FROM ${BASE}
# Already there in a base of your own: then nothing is fetched.
RUN test -s /etc/ssl/certs/ca-certificates.crt || \
    { apt-get update -qq && apt-get install -qq -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*; }
# What volumes begin as. Whoever runs here makes a directory of their own in each, 0700 where secrets are.
RUN mkdir -p /var/lib/attache /run/attache/envoy /run/attache/control /run/attache/agent && \
    chmod 1777 /var/lib/attache /run/attache/envoy /run/attache/control /run/attache/agent
COPY attache attache_filter.wasm /usr/local/bin/
# What both are made of (CycloneDX).
COPY sbom/ /usr/share/attache/sbom/
LABEL org.opencontainers.image.title="attache-broker" \
      org.opencontainers.image.description="Attaché's broker: sessions, secrets, audit log"
# The same number as `envoy` in Envoy's image: the data plane's socket is its owner's alone.
USER 101:101
ENTRYPOINT ["/usr/local/bin/attache"]
CMD ["serve"]
