"""What the gateway counts, and the door to it: pure functions that make parts of Envoy's configuration.

Lua puts what it knows of a request into the dynamic metadata `llm`, as two tables (labels.lua); Envoy's own
stats logger turns that into Prometheus metrics with labels. A series is made by the first request that has
its labels, so tenants that nobody asks cost nothing, and stays until the gateway is started again: some 10 kB
for a tenant's version.

    envoy_llm_requests_total{tenant, model, version, outcome, reason, status}
    envoy_llm_prompt_tokens_total, envoy_llm_completion_tokens_total{tenant, model, version}
    envoy_llm_request_duration_milliseconds, envoy_llm_first_byte_milliseconds{tenant, model, version}

What a request has no value for is the label `-`: Lua names only tenants and models that exist. A request that
Envoy refused before any filter saw it has empty labels. Envoy puts `envoy_` before every name, writes no
HELP lines, and its histograms hold whole milliseconds. The first byte is that of a stream. Not here: requests
in flight by tenant, because Envoy adds to a gauge before Lua has said who asks. All in flight are
`envoy_cluster_upstream_rq_active`, those of a deployment vLLM's own `vllm:num_requests_running`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NAMESPACE = "llm"
LISTENER = "metrics"
ADMIN_CLUSTER = "admin"
LOOPBACK = "127.0.0.1"
DURATIONS_MS = (10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 120_000)
"""A cached prefix is answered in tens of milliseconds, a long answer takes minutes. Each of them is a series
of every tenant, model and version that was asked."""
FLUSH_S = 5
SCRAPE_TIMEOUT_S = 30

Json = dict[str, Any]

WHAT = ("tenant", "model", "version")
_ASKED, _ENDED = "asked", "ended"
_TYPES = "type.googleapis.com/envoy.extensions"

# Without the file the route says 404, and the scrape fails as it should.
_COLLECTOR = """
function envoy_on_request(handle)
  local headers = handle:headers()
  if headers:get(":path") ~= "/metrics/audit" or headers:get(":method") ~= "GET" then return end
  local file = io.open(PATH)
  if not file then return end
  local text = file:read("*a")
  file:close()
  handle:respond({[":status"] = "200", ["content-type"] = "text/plain; version=0.0.4"}, text)
end
"""


def access_log() -> list[Json]:
    """What belongs into `access_log` of the gateway's HTTP connection manager."""
    asked = _counter("requests_total", (*WHAT, "outcome", "reason"), status="%RESPONSE_CODE%")
    took = _histogram("request_duration_milliseconds", "%DURATION%")
    waited = _histogram("first_byte_milliseconds", _value("first_byte_ms"))
    return [
        _logger(counters=[asked]),
        _logger(_asked(), histograms=[took]),
        _logger(_known("first_byte_ms"), histograms=[waited]),
        _logger(_known("prompt_tokens"), counters=[_tokens("prompt_tokens"), _tokens("completion_tokens")]),
    ]


def bootstrap_fields() -> Json:
    """What belongs into the bootstrap itself: the histograms' buckets, and how fresh they are."""
    buckets = {"match": {"prefix": f"{NAMESPACE}."}, "buckets": [float(bound) for bound in DURATIONS_MS]}
    return {
        "stats_config": {"histogram_bucket_settings": [buckets]},
        "stats_flush_interval": f"{FLUSH_S}s",
    }


def listener(port: int, collector_metrics: Path) -> Json:
    """The metrics listener: of this machine alone, `GET /metrics` and `GET /metrics/audit`, nothing else.

    The second shows a file that the collector of audit records writes, so that it needs no port of its own.
    """
    source = {"inline_string": _COLLECTOR.replace("PATH", json.dumps(str(collector_metrics)))}
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": LISTENER,
        "codec_type": "HTTP1",
        "request_timeout": f"{SCRAPE_TIMEOUT_S}s",
        "request_headers_timeout": "5s",
        "route_config": {"name": LISTENER, "virtual_hosts": [_routes()]},
        "http_filters": [
            _filter("lua", "lua.v3.Lua", default_source_code=source),
            _filter("router", "router.v3.Router"),
        ],
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    address = {"socket_address": {"address": LOOPBACK, "port_value": port}}
    return {"name": LISTENER, "address": address, "filter_chains": [chain]}


def cluster(admin_socket: str) -> Json:
    """The cluster of the metrics listener: Envoy's admin interface, which has no port of its own.

    The path is as in the bootstrap's `admin`: relative to the folder that Envoy runs in.
    """
    endpoint = {"endpoint": {"address": {"pipe": {"path": admin_socket}}}}
    return {
        "name": ADMIN_CLUSTER,
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": ADMIN_CLUSTER, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _filter(name: str, kind: str, **config: Any) -> Json:
    return {"name": name, "typed_config": {"@type": f"{_TYPES}.filters.http.{kind}", **config}}


def _routes() -> Json:
    """`:path` holds the query too, so a scraper cannot hand the admin interface parameters of its own."""
    asked = [_header(":method", "GET"), _header(":path", "/metrics")]
    scrape = {
        "match": {"path": "/metrics", "headers": asked},
        "route": {
            "cluster": ADMIN_CLUSTER,
            "prefix_rewrite": "/stats/prometheus?usedonly",
            "timeout": f"{SCRAPE_TIMEOUT_S}s",
        },
    }
    other = {"match": {"prefix": "/"}, "direct_response": {"status": 404}}
    return {"name": LISTENER, "domains": ["*"], "routes": [scrape, other]}


def _header(name: str, value: str) -> Json:
    return {"name": name, "string_match": {"exact": value}}


def _asked() -> Json:
    """Requests that a version was asked: a refusal takes no time, and would hide how long answers take."""
    return _condition("version", {"string_match": {"safe_regex": {"regex": "[^-].*"}}})


def _known(name: str) -> Json:
    """Requests that have this value; for each that has not, Envoy would log an error."""
    return _condition(name, {"present_match": True})


def _condition(name: str, value: Json) -> Json:
    path = [{"key": _table(name)}, {"key": name}]
    matcher = {"filter": NAMESPACE, "path": path, "value": value}  # `invert` would be ignored here
    return {"metadata_filter": {"matcher": matcher, "match_if_key_not_found": False}}


def _logger(condition: Json | None = None, **metrics: list[Json]) -> Json:
    config = {"@type": f"{_TYPES}.access_loggers.stats.v3.Config", "stat_prefix": NAMESPACE, **metrics}
    logger: Json = {"name": "envoy.access_loggers.stats", "typed_config": config}
    return logger | ({"filter": condition} if condition else {})


def _counter(name: str, tags: Sequence[str], **others: str) -> Json:
    return {"stat": _stat(name, tags, **others), "value_fixed": 1}


def _tokens(name: str) -> Json:
    return {"stat": _stat(f"{name}_total", WHAT), "value_format": _value(name)}


def _histogram(name: str, value: str) -> Json:
    return {"stat": _stat(name, WHAT), "unit": "Milliseconds", "value_format": value}


def _stat(name: str, tags: Sequence[str], **others: str) -> Json:
    values = {tag: _value(tag) for tag in tags} | others
    return {"name": name, "tags": [{"name": tag, "value_format": text} for tag, text in values.items()]}


def _value(name: str) -> str:
    return f"%DYNAMIC_METADATA({NAMESPACE}:{_table(name)}:{name})%"


def _table(name: str) -> str:
    return _ASKED if name in WHAT else _ENDED
