"""Envoy's configuration: pure functions from one frozen value to the dictionaries that Envoy reads.

Nothing in the bootstrap belongs to a tenant: a listener that changes cuts streams. What changes while the
gateway runs lies in files that Envoy or its Lua filter follow: `xds/clusters.json` (`envoy_upstream`),
`xds/jwt.json`, `xds/certificate.json` (`envoy_tls`), and the journals.
"""

import socket

from resources.gateway import metrics
from resources.gateway.envoy_http import connection_manager
from resources.gateway.envoy_settings import GatewaySettings
from resources.gateway.envoy_tls import transport_socket
from resources.json_values import Json

ADMIN_SOCKET = "admin.sock"
LISTENER = "door"
AUDIT = "audit"
"""Beside the gateway's folder: where the collector keeps the audit log."""

PRIVATE = 0o600


def bootstrap(settings: GatewaySettings) -> Json:
    """All that Envoy is started with. It holds no secret: the keys of vLLM's servers are in the journal."""
    return {
        "node": {"id": "gateway", "cluster": "llm-assets"},
        # Relative to the folder that Envoy runs in: an address of this kind has room for 107 bytes.
        "admin": {"address": {"pipe": {"path": ADMIN_SOCKET, "mode": PRIVATE}}},
        "static_resources": {
            "listeners": [listener(settings), *_metrics_listeners(settings)],
            "clusters": metrics.clusters(ADMIN_SOCKET, f"../{AUDIT}/{metrics.COLLECTOR_SOCKET}"),
        },
        "dynamic_resources": {
            "cds_config": {
                "path_config_source": {"path": str(settings.clusters)},
                "resource_api_version": "V3",
            }
        },
        "overload_manager": _overload_manager(settings),
    }


def _metrics_listeners(settings: GatewaySettings) -> list[Json]:
    """A gateway that is full has its metrics read all the more."""
    if settings.metrics_port is None:
        return []
    listening = metrics.listener(settings.metrics_port, settings.folder.parent)
    return [{**listening, "ignore_global_conn_limit": True}]


def listener(settings: GatewaySettings) -> Json:
    """Where clients connect: TLS where a certificate is given, else plain HTTP, which only loopback gets."""
    chain: Json = {"filters": [{"name": "http", "typed_config": connection_manager(settings)}]}
    if settings.certificate:
        chain |= {"transport_socket": transport_socket(settings), "transport_socket_connect_timeout": "10s"}
    return {
        "name": LISTENER,
        "address": {"socket_address": {"address": settings.host, "port_value": settings.port}},
        # What Lua may hold of one request or answer: the limit of a body.
        "per_connection_buffer_limit_bytes": settings.max_body_bytes,
        "tcp_backlog_size": 4096,
        "socket_options": [_unread_for_at_most(settings.unread_s)],
        "filter_chains": [chain],
    }


def _unread_for_at_most(seconds: int) -> Json:
    """The kernel disconnects who takes nothing: Envoy holds the rest of an answer for as long."""
    option = {"level": socket.IPPROTO_TCP, "name": socket.TCP_USER_TIMEOUT, "int_value": seconds * 1000}
    return {"description": "TCP_USER_TIMEOUT", **option, "state": "STATE_LISTENING"}


def _overload_manager(settings: GatewaySettings) -> Json:
    """More connections than the limit are not accepted; short of memory, new requests are refused (503)."""
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            _monitor(
                "global_downstream_max_connections",
                "downstream_connections.v3.DownstreamConnectionsConfig",
                max_active_downstream_connections=settings.max_connections,
            ),
            _monitor(
                "fixed_heap", "fixed_heap.v3.FixedHeapConfig", max_heap_size_bytes=settings.max_heap_bytes
            ),
        ],
        "actions": [
            _action("shrink_heap", 0.90),
            _action("stop_accepting_requests", 0.95),
        ],
    }


def _monitor(name: str, kind: str, **limits: int) -> Json:
    type_url = f"type.googleapis.com/envoy.extensions.resource_monitors.{kind}"
    return {"name": f"envoy.resource_monitors.{name}", "typed_config": {"@type": type_url, **limits}}


def _action(name: str, heap_share: float) -> Json:
    trigger = {"name": "envoy.resource_monitors.fixed_heap", "threshold": {"value": heap_share}}
    return {"name": f"envoy.overload_actions.{name}", "triggers": [trigger]}
