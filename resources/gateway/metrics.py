"""The door to the metrics: pure functions that make parts of Envoy's configuration.

One listener, of this machine alone. `GET /metrics` is Envoy's own: connections, streams, clusters.
`GET /metrics/audit` is the collector's: requests by tenant, model and version (`request_metrics`), and how
far their records are sealed. Nothing else of Envoy's admin interface is there.
"""

from typing import Any

LISTENER = "metrics"
ADMIN_CLUSTER, COLLECTOR_CLUSTER = "admin", "collector"
COLLECTOR_SOCKET = "metrics.sock"
"""Where the collector shows its metrics, in the folder of the audit log, which is its owner's alone."""

LOOPBACK = "127.0.0.1"
SCRAPE_TIMEOUT_S = 30

Json = dict[str, Any]

_TYPES = "type.googleapis.com/envoy.extensions"


def listener(port: int) -> Json:
    """The metrics listener: the two addresses, 404 for all else."""
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": LISTENER,
        "codec_type": "HTTP1",
        "request_timeout": f"{SCRAPE_TIMEOUT_S}s",
        "request_headers_timeout": "5s",
        "route_config": {"name": LISTENER, "virtual_hosts": [_routes()]},
        "http_filters": [
            {
                "name": "router",
                "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"},
            }
        ],
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    address = {"socket_address": {"address": LOOPBACK, "port_value": port}}
    return {"name": LISTENER, "address": address, "filter_chains": [chain]}


def clusters(admin_socket: str, collector_socket: str) -> list[Json]:
    """What the listener asks: Envoy's admin interface and the collector, which have no ports of their own.

    The paths are as in the bootstrap's `admin`: relative to the folder that Envoy runs in.
    """
    return [_cluster(ADMIN_CLUSTER, admin_socket), _cluster(COLLECTOR_CLUSTER, collector_socket)]


def _cluster(name: str, socket: str) -> Json:
    endpoint = {"endpoint": {"address": {"pipe": {"path": socket}}}}
    return {
        "name": name,
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _routes() -> Json:
    shown = [
        _shown("/metrics", ADMIN_CLUSTER, prefix_rewrite="/stats/prometheus?usedonly"),
        _shown("/metrics/audit", COLLECTOR_CLUSTER),
    ]
    other = {"match": {"prefix": "/"}, "direct_response": {"status": 404}}
    return {"name": LISTENER, "domains": ["*"], "routes": [*shown, other]}


def _shown(path: str, cluster: str, **rewrite: str) -> Json:
    """`:path` holds the query too, so a scraper cannot hand the admin interface parameters of its own."""
    asked = [_header(":method", "GET"), _header(":path", path)]
    route = {"cluster": cluster, "timeout": f"{SCRAPE_TIMEOUT_S}s", **rewrite}
    return {"match": {"path": path, "headers": asked}, "route": route}


def _header(name: str, value: str) -> Json:
    return {"name": name, "string_match": {"exact": value}}
