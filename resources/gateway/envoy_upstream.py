"""The side of the gateway that faces vLLM: the clusters of the deployments, and the files of their endpoints.

Each deployment is a subset of one of a few clusters (`shards`), named by its id: ten thousand of them cost an
endpoint each and not a cluster each. An endpoint whose metadata names several ids is a port that two servers
share for the moment of a switch.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from resources.gateway.envoy_settings import GatewaySettings

Json = dict[str, Any]

_MANY = 100_000  # a cluster serves many tenants: a limit on it would let one of them starve the others
_EJECTING = 100  # percent of the cases


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where one server listens, and whose it is. `deployment` is the id that the filter chooses it by."""

    deployment: str
    tenant: str
    model: str
    address: str
    port: int


def deployments_cluster(settings: GatewaySettings, name: str) -> Json:
    """The cluster of that name; its endpoints come from a file of its own."""
    return {
        "name": name,
        "type": "EDS",
        "connect_timeout": f"{settings.connect_s}s",
        "eds_cluster_config": {
            "eds_config": {
                "path_config_source": {"path": str(settings.endpoints / f"{name}.json")},
                "resource_api_version": "V3",
            }
        },
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
        "typed_extension_protocol_options": _protocol(settings),
    }


def _outlier_detection() -> Json:
    """A host that cannot be reached leaves for a few seconds, so that nobody waits for it at every request.

    What a server answers, 5xx included, ejects nothing: a tenant could take a deployment away from its other
    users by asking it what it fails at.
    """
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 5,
        "enforcing_consecutive_local_origin_failure": _EJECTING,
        "enforcing_local_origin_success_rate": 0,
        "enforcing_consecutive_5xx": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "interval": "1s",
        "base_ejection_time": "2s",
        "max_ejection_time": "30s",
        "max_ejection_percent": 100,  # of the whole cluster: a deployment of one host may lose it
    }


def _thresholds() -> Json:
    many = ("max_connections", "max_pending_requests", "max_requests")
    return dict.fromkeys(many, _MANY) | {"max_retries": 1_000}


def _protocol(settings: GatewaySettings) -> Json:
    """HTTP/1.1 is what vLLM's server speaks."""
    kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    options = {
        "@type": f"type.googleapis.com/{kind}",
        "common_http_protocol_options": {"idle_timeout": f"{settings.upstream_idle_s}s"},
        "explicit_http_config": {"http_protocol_options": {}},
    }
    return {kind: options}


def endpoints(cluster: str, known: Iterable[Endpoint], version: str) -> Json:
    """The content of a cluster's file. Envoy names the version that it has taken in its statistics."""
    shared: dict[tuple[str, int], list[Endpoint]] = {}
    for each in known:
        shared.setdefault((each.address, each.port), []).append(each)
    assignment = {
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": cluster,
        "endpoints": [{"lb_endpoints": [_lb_endpoint(listening) for listening in shared.values()]}],
    }
    return {"version_info": version, "resources": [assignment]}


def _lb_endpoint(listening: list[Endpoint]) -> Json:
    """Of those that share one address."""
    first, ids = listening[0], [each.deployment for each in listening]
    chosen_by = {"deployment": ids if len(ids) > 1 else ids[0]}
    owner = {"tenant": first.tenant, "model": first.model}
    return {
        "endpoint": {"address": {"socket_address": {"address": first.address, "port_value": first.port}}},
        "metadata": {"filter_metadata": {"envoy.lb": chosen_by, "llm": owner}},
    }


def endpoints_in(content: Mapping[str, Any]) -> tuple[str, tuple[Endpoint, ...]]:
    """The version and the endpoints of what `endpoints` made."""
    (assignment,) = content["resources"]
    found = [
        endpoint
        for locality in assignment["endpoints"]
        for each in locality["lb_endpoints"]
        for endpoint in _listening(each)
    ]
    return content["version_info"], tuple(found)


def _listening(lb_endpoint: Json) -> Iterable[Endpoint]:
    place = lb_endpoint["endpoint"]["address"]["socket_address"]
    metadata = lb_endpoint["metadata"]["filter_metadata"]
    ids = metadata["envoy.lb"]["deployment"]
    for deployment in [ids] if isinstance(ids, str) else ids:
        yield Endpoint(
            deployment=deployment, address=place["address"], port=place["port_value"], **metadata["llm"]
        )
