"""The metrics address: pure functions that make parts of Envoy's configuration.

One listener, of this machine alone, that answers whoever has the token in `TOKEN_FILE`. `GET /metrics` is
Envoy's own: connections, streams, clusters. `GET /metrics/audit` is the collector's: requests by tenant,
model and version (`request_metrics`), and how far their records are sealed. `GET /metrics/vllm/<deployment>`
is a server's. Nothing else of Envoy's admin interface and of vLLM is there.

Where a request goes is said by the Lua module `metrics_access`, in a header that no client can set: if the
filter fails, a request has nowhere to go.
"""

from pathlib import Path

from resources.gateway.lua_texts import lua_text
from resources.gateway.shards import CHOOSE_IN_LUA, HEADER
from resources.json_values import Json
from resources.shipped_files import GATEWAY_FILTER

LISTENER = "metrics"
ADMIN_CLUSTER, COLLECTOR_CLUSTER = "admin", "collector"
COLLECTOR_SOCKET = "metrics.sock"
"""Where the collector shows its metrics, in the folder of the audit log, which is its owner's alone."""
TOKEN_FILE = "monitoring/token"  # noqa: S105  where it lies
"""Below the state folder; made with the gateway. Prometheus reads it (`credentials_file`)."""

LOOPBACK = "127.0.0.1"
SCRAPE_TIMEOUT_S = 30


_TYPES = "type.googleapis.com/envoy.extensions"


def listener(port: int, home: Path) -> Json:
    """The metrics listener of a state folder: its three addresses for the token, 401 without, else 404."""
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": LISTENER,
        "codec_type": "HTTP1",
        "request_timeout": f"{SCRAPE_TIMEOUT_S}s",
        "request_headers_timeout": "5s",
        "early_header_mutation_extensions": [without_a_chosen_cluster()],
        "route_config": {"name": LISTENER, "virtual_hosts": [_routes()]},
        "http_filters": [
            {
                "name": "lua",
                "typed_config": {
                    "@type": f"{_TYPES}.filters.http.lua.v3.Lua",
                    "default_source_code": {"inline_string": _lua_source(home)},
                },
            },
            {
                "name": "router",
                "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"},
            },
        ],
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    address = {"socket_address": {"address": LOOPBACK, "port_value": port}}
    return {"name": LISTENER, "address": address, "filter_chains": [chain]}


def without_a_chosen_cluster() -> Json:
    """Before any filter: whatever becomes of Lua, a client never names the cluster that answers it."""
    kind = "http.early_header_mutation.header_mutation.v3.HeaderMutation"
    config = {"@type": f"{_TYPES}.{kind}", "mutations": [{"remove": HEADER}]}
    return {"name": "envoy.http.early_header_mutation.header_mutation", "typed_config": config}


def clusters(admin_socket: str, collector_socket: str) -> list[Json]:
    """What the listener asks beside vLLM: Envoy's admin interface and the collector, which have no ports.

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


def _lua_source(home: Path) -> str:
    path, folder = lua_text(f"{GATEWAY_FILTER}/?.lua;"), lua_text(str(home))
    return (
        f"package.path = {path} .. package.path\n"
        'local access = require("metrics_access")\n'
        f"access.configure{{home = {folder}, gateway = {lua_text(ADMIN_CLUSTER)}, "
        f"collector = {lua_text(COLLECTOR_CLUSTER)}}}\n"
        f"{CHOOSE_IN_LUA}"
        "function envoy_on_request(handle)\n"
        "  local cluster, deployment = access.on_request(handle)\n"
        f'  if cluster then handle:headers():replace("{HEADER}", cluster) end\n'
        "  choose_cluster(handle, deployment)\n"
        "end\n"
    )


def _routes() -> Json:
    shown = [
        _shown({"path": "/metrics"}, "/stats/prometheus?usedonly"),
        _shown({"path": "/metrics/audit"}, "/metrics/audit"),
        _shown({"prefix": "/metrics/vllm/"}, "/metrics"),
    ]
    other = {"match": {"prefix": "/"}, "direct_response": {"status": 404}}
    return {"name": LISTENER, "domains": ["*"], "routes": [*shown, other]}


def _shown(match: Json, asked: str) -> Json:
    """Whatever the scraper's query was, what is asked has none but its own."""
    rewrite = {"pattern": {"regex": "^.*$"}, "substitution": asked}
    route = {"cluster_header": HEADER, "timeout": f"{SCRAPE_TIMEOUT_S}s", "regex_rewrite": rewrite}
    return {"match": match, "route": route}
