"""The gateway: Envoy, what it is told (servers, keys, issuers, limits), and its metrics."""
