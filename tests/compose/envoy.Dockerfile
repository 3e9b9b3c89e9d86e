# Stands in for the image that would be pulled under this name: the same entry, the same binary, the same user.
FROM debian:bookworm-slim
COPY envoy docker-entrypoint.sh /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/docker-entrypoint.sh"]
CMD ["envoy", "-c", "/etc/envoy/envoy.yaml"]
