"""The side of the gateway that faces vLLM: the clusters of the deployments, and which servers are in them.

Each deployment is a subset of one of a few clusters (`shards`), named by its id: ten thousand of them cost an
endpoint each and not a cluster each. An endpoint is a unix socket: only the owner of the state folder can
connect to it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from resources.gateway.shards import CLUSTERS, cluster_of
from resources.json_values import Json

Owner = tuple[str, str]
"""Tenant and model."""
Listening = dict[Owner, dict[str, str]]
"""Of each model, by the id that the filter chooses them by, the addresses of its backends."""

CONNECT_S = 1
IDLE_S = 3  # less than the 5 s for which vLLM keeps a connection: none is used that it is closing
UNIX = "unix:"
"""Begins the address of a socket, whose path is below the state folder."""
_BESIDE = "../"  # of the folder that Envoy runs in: an address has room for 107 bytes
_MANY = 100_000  # a cluster serves many tenants: a limit on it would let one of them starve the others
_EJECTING = 100  # percent of the cases


def clusters(known: Listening, version: str) -> Json:
    """The content of `xds/clusters.json`: every cluster, empty ones too.

    Envoy replaces those that differ from what it has, and names the version in its statistics.
    """
    listening: dict[str, list[Json]] = {name: [] for name in CLUSTERS}
    every = ((backend, address, owner) for owner, each in known.items() for backend, address in each.items())
    for backend, address, owner in sorted(every):
        listening[cluster_of(backend)].append(_lb_endpoint(backend, address, owner))
    resources = [_cluster(name, found) for name, found in listening.items()]
    return {"version_info": version, "resources": resources}


def _cluster(name: str, lb_endpoints: Iterable[Json]) -> Json:
    return {
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "connect_timeout": f"{CONNECT_S}s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": list(lb_endpoints)}]},
        "lb_policy": "LEAST_REQUEST",
        "lb_subset_config": {
            "fallback_policy": "NO_FALLBACK",
            "subset_selectors": [{"keys": ["deployment"]}],
            "list_as_any": True,
        },
        "common_lb_config": {
            # No panic: a host that is known to be dead is not asked because the others are dead too.
            "healthy_panic_threshold": {"value": 0},
            "update_merge_window": "0s",
        },
        "outlier_detection": _outlier_detection(),
        "circuit_breakers": {"thresholds": [_thresholds()]},
        "typed_extension_protocol_options": _protocol(),
    }


def _outlier_detection() -> Json:
    """A host that cannot be reached leaves for a few seconds, so that nobody waits for it at every request.

    What a server answers, 5xx included, ejects nothing: a tenant could take a deployment away from its other
    users by asking it what it fails at.
    """
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 3,
        "enforcing_consecutive_local_origin_failure": _EJECTING,
        "enforcing_local_origin_success_rate": 0,
        "enforcing_consecutive_5xx": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "interval": "1s",
        "base_ejection_time": "10s",
        "max_ejection_time": "60s",
        "max_ejection_percent": 100,  # of the whole cluster: a deployment of one host may lose it
    }


def _thresholds() -> Json:
    many = ("max_connections", "max_pending_requests", "max_requests")
    return dict.fromkeys(many, _MANY) | {"max_retries": 1_000}


def _protocol() -> Json:
    """HTTP/1.1 is what vLLM's server speaks."""
    kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    options = {
        "@type": f"type.googleapis.com/{kind}",
        "common_http_protocol_options": {"idle_timeout": f"{IDLE_S}s"},
        "explicit_http_config": {"http_protocol_options": {}},
    }
    return {kind: options}


def _lb_endpoint(backend: str, address: str, owner: Owner) -> Json:
    tenant, model = owner
    metadata = {"envoy.lb": {"deployment": backend}, "llm": {"tenant": tenant, "model": model}}
    return {
        "endpoint": {"address": {"pipe": {"path": _BESIDE + address.removeprefix(UNIX)}}},
        "metadata": {"filter_metadata": metadata},
    }


def listening_in(content: Mapping[str, Any]) -> Listening:
    """What `clusters` made it of."""
    known: Listening = {}
    for cluster in content["resources"]:
        for locality in cluster["load_assignment"]["endpoints"]:
            for each in locality["lb_endpoints"]:
                metadata = each["metadata"]["filter_metadata"]
                owner = (metadata["llm"]["tenant"], metadata["llm"]["model"])
                path = each["endpoint"]["address"]["pipe"]["path"].removeprefix(_BESIDE)
                known.setdefault(owner, {})[metadata["envoy.lb"]["deployment"]] = UNIX + path
    return known
