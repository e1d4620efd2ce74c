"""The Envoy before a console: it alone listens at an address, the application on a unix socket of its owner.

A client that sends a byte a minute or opens thousands of connections takes nothing from the others for long.
The configuration is a pure function of the console.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from resources.consoles.consoles import Console
from resources.durable_files import replace_json
from resources.gateway.envoy import envoy_program
from resources.json_values import Json

SOCKET = "app.sock"
CONFIG = "front.json"

CONNECTIONS = 1000
HEADERS_S = 10
REQUEST_S = 120
ANSWER_S = 300
"""How long an answer may pause; the pages' web sockets say something more often."""
IDLE_S = 3  # less than the 5 s for which uvicorn keeps a connection: none is used that it is closing

_TYPES = "type.googleapis.com/envoy.extensions"
_CONNECTIONS = "resource_monitors.downstream_connections"
_PR_SET_PDEATHSIG = 1


def configuration(console: Console) -> Json:
    """What Envoy is started with, in the console's folder: the socket's address is relative to it."""
    return {
        "node": {"id": console.name, "cluster": "llm-assets"},
        "static_resources": {"listeners": [_listener(console)], "clusters": [_cluster()]},
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": f"{_TYPES}.{_CONNECTIONS}.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": CONNECTIONS,
                    },
                }
            ]
        },
    }


def _listener(console: Console) -> Json:
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": console.name,
        "use_remote_address": True,
        "server_header_transformation": "PASS_THROUGH",
        "generate_request_id": False,
        "request_headers_timeout": f"{HEADERS_S}s",
        "request_timeout": f"{REQUEST_S}s",
        "stream_idle_timeout": f"{ANSWER_S}s",
        "common_http_protocol_options": {"idle_timeout": f"{ANSWER_S}s"},
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "local_reply_config": {"mappers": [_not_there(console)]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"},
            }
        ],
        "route_config": {
            "name": "all",
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app", "timeout": "0s"}}],
                    "response_headers_to_remove": ["x-envoy-upstream-service-time"],
                }
            ],
        },
    }
    return {
        "name": console.name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": console.port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def _not_there(console: Console) -> Json:
    text = f"{console.title} is starting, or has ended; its log says more (`llm-assets status`).\n"
    return {
        "filter": {
            "status_code_filter": {
                "comparison": {"op": "EQ", "value": {"default_value": 503, "runtime_key": "unused"}}
            }
        },
        "body_format_override": {"text_format_source": {"inline_string": text}},
    }


def _cluster() -> Json:
    protocol = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    options = {
        "@type": f"type.googleapis.com/{protocol}",
        "common_http_protocol_options": {"idle_timeout": f"{IDLE_S}s"},
        "explicit_http_config": {"http_protocol_options": {}},
    }
    endpoint = {"endpoint": {"address": {"pipe": {"path": SOCKET}}}}
    return {
        "name": "app",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "app", "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {protocol: options},
    }


@contextmanager
def envoy_before(console: Console) -> Iterator[None]:
    """Envoy, for as long as the block runs."""
    replace_json(console.folder / CONFIG, configuration(console))
    command = [str(envoy_program()), "-c", CONFIG, "--concurrency", "1", "--disable-hot-restart"]
    command += ["--log-level", "warning", "--skip-deprecated-logs"]
    with child_of_ours(command, cwd=console.folder):
        yield


@contextmanager
def child_of_ours(command: Sequence[str], *, cwd: Path) -> Iterator[None]:
    """A process for as long as the block runs; where one of the two dies, the other ends too.

    Called in the main thread, for the child ends with the thread that started it.
    """
    child = subprocess.Popen(command, cwd=cwd, preexec_fn=_die_with_parent)
    over = threading.Event()
    threading.Thread(target=_end_with, args=(child, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()
        child.terminate()
        child.wait()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end_with(child: subprocess.Popen[bytes], over: threading.Event) -> None:
    child.wait()
    if not over.is_set():
        print(f"{child.args!r} ended with {child.returncode}.", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
