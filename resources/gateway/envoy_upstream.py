"""The side of the gateway that faces vLLM: the clusters of the deployments, and which servers are in them.

Each deployment is a subset of one of a few clusters (`shards`), named by its id: ten thousand of them cost an
endpoint each and not a cluster each. An endpoint is a unix socket: only the owner of the state folder can
connect to it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from resources.gateway.shards import CLUSTERS, cluster_of
from resources.json_values import Json
from resources.serving.deployment_state import SOCKETS

CONNECT_S = 1
IDLE_S = 3  # less than the 5 s for which vLLM keeps a connection: none is used that it is closing
_BESIDE = f"../{SOCKETS}/"
_MANY = 100_000  # a cluster serves many tenants: a limit on it would let one of them starve the others
_EJECTING = 100  # percent of the cases


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where one server listens, and whose it is.

    Attributes:
        deployment: The id that the filter chooses it by.
        socket: The name of its socket in the folder `SOCKETS`, beside the gateway's.
    """

    deployment: str
    tenant: str
    model: str
    socket: str


def clusters(known: Iterable[Endpoint], version: str) -> Json:
    """The content of `xds/clusters.json`: every cluster, empty ones too.

    Envoy replaces those that differ from what it has, and names the version in its statistics.
    """
    listening: dict[str, list[Endpoint]] = {name: [] for name in CLUSTERS}
    for each in known:
        listening[cluster_of(each.deployment)].append(each)
    resources = [_cluster(name, found) for name, found in listening.items()]
    return {"version_info": version, "resources": resources}


def _cluster(name: str, known: Iterable[Endpoint]) -> Json:
    return {
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "connect_timeout": f"{CONNECT_S}s",
        "load_assignment": _load_assignment(name, known),
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


def _load_assignment(cluster: str, known: Iterable[Endpoint]) -> Json:
    lb_endpoints = [_lb_endpoint(each) for each in known]
    return {"cluster_name": cluster, "endpoints": [{"lb_endpoints": lb_endpoints}]}


def _lb_endpoint(endpoint: Endpoint) -> Json:
    """The path is relative to the folder that Envoy runs in: an address has room for 107 bytes."""
    chosen_by = {"deployment": endpoint.deployment}
    owner = {"tenant": endpoint.tenant, "model": endpoint.model}
    return {
        "endpoint": {"address": {"pipe": {"path": f"{_BESIDE}{endpoint.socket}"}}},
        "metadata": {"filter_metadata": {"envoy.lb": chosen_by, "llm": owner}},
    }


def endpoints_in(content: Mapping[str, Any]) -> tuple[Endpoint, ...]:
    """The endpoints of what `clusters` made."""
    return tuple(
        _endpoint(each)
        for cluster in content["resources"]
        for locality in cluster["load_assignment"]["endpoints"]
        for each in locality["lb_endpoints"]
        if "pipe"
        in each["endpoint"]["address"]  # others an earlier release wrote, of servers that are replaced
    )


def _endpoint(lb_endpoint: Json) -> Endpoint:
    path = lb_endpoint["endpoint"]["address"]["pipe"]["path"]
    metadata = lb_endpoint["metadata"]["filter_metadata"]
    deployment = metadata["envoy.lb"]["deployment"]
    return Endpoint(deployment=deployment, socket=path.removeprefix(_BESIDE), **metadata["llm"])
