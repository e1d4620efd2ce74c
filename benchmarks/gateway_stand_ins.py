"""The two stand-ins for vLLM that every gateway stands before, and the processes of the benchmark."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gateway_load import LoadError
from llm_assets.installation.settings import find_settings
from resources.gateway.envoy import envoy_program
from resources.waiting import WaitError, wait_until
from tests.servers.ports import free_port

MODEL = "support_bot"
DIGEST = "sha256:" + "d" * 64
READY_S = 300
TYPES = "type.googleapis.com/envoy.extensions.filters"
WHOLE = {
    "id": "chatcmpl-stand-in",
    "object": "chat.completion",
    "created": 1_763_769_600,
    "model": MODEL,
    "system_fingerprint": DIGEST,
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "We are open from nine to five, " * 12},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 40, "completion_tokens": 96, "total_tokens": 136},
}


@dataclass(frozen=True, kw_only=True)
class StandIns:
    """What is behind every gateway, each at a port and on a socket, and who answers whole questions there."""

    whole: int
    whole_socket: Path
    streams: int
    streams_socket: Path
    pid: int


@contextmanager
def running(
    command: Sequence[str | Path], folder: Path, name: str, **given: Any
) -> Iterator[subprocess.Popen]:
    """A process of the benchmark's own, ended with it; its log is `<name>.log`."""
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=given.pop("cwd", folder), stdout=log, stderr=log, **given)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_listening(port: int, process: subprocess.Popen, log: Path) -> None:
    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(
            listens,
            what=f"What listens at port {port}",
            timeout_s=READY_S,
            failed=lambda: None if process.poll() is None else f"exit status {process.returncode}",
        )
    except WaitError as error:
        raise LoadError(f"{error}\n{log.read_text(errors='replace')[-3000:]}") from error


@contextmanager
def envoy(
    folder: Path, name: str, port: int, route: dict[str, Any], backend: dict[str, int]
) -> Iterator[int]:
    """An Envoy with one worker, a port and a socket, no filter but the router; gives its process id.

    One that answers itself (it has no backend) reads the request first: it would close the connection else.
    """
    filters = [{"name": "router", "typed_config": {"@type": f"{TYPES}.http.router.v3.Router"}}]
    if not backend:
        whole = {"@type": f"{TYPES}.http.buffer.v3.Buffer", "max_request_bytes": 2**20}
        filters.insert(0, {"name": "buffer", "typed_config": whole})
    manager = {
        "@type": f"{TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes(route, backend)}]
        },
        "http_filters": filters,
    }
    chains = {"filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}]}
    addresses = (at(port), {"pipe": {"path": f"{name}.sock"}})
    config = {
        "static_resources": {
            "listeners": [{"address": address, **chains} for address in addresses],
            "clusters": [cluster(*item) for item in backend.items()],
        }
    }
    (folder / f"{name}.json").write_text(json.dumps(config))
    command: list[str | Path] = [
        envoy_program(),
        "-c",
        f"{name}.json",
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "-l",
        "error",
    ]
    with running(command, folder, name) as process:
        wait_listening(port, process, folder / f"{name}.log")
        yield process.pid


def routes(route: dict[str, Any], backend: dict[str, int]) -> list[dict[str, Any]]:
    """By a header the streams, all else as given: a bare router does not read bodies."""
    every = {"match": {"prefix": "/"}, **route}
    if "streams" not in backend:
        return [every]
    asked = {"prefix": "/", "headers": [{"name": "x-streams", "present_match": True}]}
    return [{"match": asked, "route": {"cluster": "streams", "timeout": "0s"}}, every]


def at(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def cluster(name: str, port: int) -> dict[str, Any]:
    """As many connections as are asked for, as the gateway's own."""
    many = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), 100_000)
    hosts = [{"lb_endpoints": [{"endpoint": {"address": at(port)}}]}]
    return {
        "name": name,
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [many]},
        "load_assignment": {"cluster_name": name, "endpoints": hosts},
    }


@contextmanager
def stand_ins(folder: Path) -> Iterator[StandIns]:
    whole, streaming = free_port(), free_port()
    answer = {"status": 200, "body": {"inline_string": json.dumps(WHOLE)}}
    header = {"header": {"key": "content-type", "value": "application/json"}, "append_action": 2}
    route = {"direct_response": answer, "response_headers_to_add": [header]}
    sockets = {"whole_socket": folder / "stand_in.sock", "streams_socket": folder / "streams.sock"}
    command: list[str | Path] = [sys.executable, "-m", "benchmarks.stream_stand_in", str(streaming), DIGEST]
    command.append(str(sockets["streams_socket"]))
    root = find_settings().root
    with (
        envoy(folder, "stand_in", whole, route, {}) as pid,
        running(command, folder, "streams", cwd=root) as process,
    ):
        wait_listening(streaming, process, folder / "streams.log")
        yield StandIns(whole=whole, streams=streaming, **sockets, pid=pid)
