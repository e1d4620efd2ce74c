"""The filter in a real Envoy, with the smallest configuration that carries it, before stand-ins for vLLM."""

import asyncio
import base64
import hashlib
import json
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import envoy
import httpx

from resources.gateway.envoy_ends import AT_ONCE, ends_log
from resources.shipped_files import GATEWAY_FILTER
from tests.servers.ports import free_port

ROOT = Path(__file__).parents[3]
LUA = GATEWAY_FILTER
ENVOY = Path(envoy.__path__[0]) / "_bin" / "envoy"
DOMAIN = "localhost"
BODY_LIMIT_BYTES = 1024 * 1024
BODIES_BYTES = 64 * BODY_LIMIT_BYTES
MANY = 1_000_000
DIGESTS = {"d1": "sha256:" + "1" * 64, "d2": "sha256:" + "2" * 64}
CHAT = "/t/team-a/v1/chat/completions"
ENGINE_KEY = "the-engine's-own-key"
_TYPE = "type.googleapis.com/envoy.extensions"
_READY_S = 15


def script(home: Path) -> str:
    """What the Lua filter of Envoy's configuration says; all else is in deployments/gateway."""
    return f"""
package.path = "{LUA}/?.lua;" .. package.path
local gateway = require("gateway").configure({{
  home = "{home}", domain = "{DOMAIN}", body_bytes = {BODY_LIMIT_BYTES}, bodies_bytes = {BODIES_BYTES},
  refusals = {{ recorded = {MANY}, most = {MANY} }},
}})
function envoy_on_request(handle) gateway.on_request(handle) end
function envoy_on_response(handle) gateway.on_response(handle) end
"""


def _endpoint(port: int, deployment: str) -> dict[str, Any]:
    return {
        "endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}},
        "metadata": {"filter_metadata": {"envoy.lb": {"deployment": deployment}}},
    }


def cluster(backends: dict[str, int]) -> dict[str, Any]:
    return {
        "name": "deployments",
        "type": "STATIC",
        "lb_subset_config": {
            "fallback_policy": "NO_FALLBACK",
            "subset_selectors": [{"keys": ["deployment"]}],
        },
        "load_assignment": {
            "cluster_name": "deployments",
            "endpoints": [{"lb_endpoints": [_endpoint(port, name) for name, port in backends.items()]}],
        },
    }


def _router() -> dict[str, Any]:
    return {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{_TYPE}.filters.http.router.v3.Router"},
    }


def _lua(source: str) -> dict[str, Any]:
    return {
        "name": "envoy.filters.http.lua",
        "typed_config": {
            "@type": f"{_TYPE}.filters.http.lua.v3.Lua",
            "default_source_code": {"inline_string": source},
        },
    }


def jwt_filter(providers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Envoy's own filter for tokens, for what looks like one."""
    is_token = {"name": "authorization", "string_match": {"prefix": "Bearer ey"}}
    required: dict[str, Any] = {
        "requires_any": {"requirements": [{"provider_name": name} for name in providers]}
    }
    if len(providers) == 1:
        required = {"provider_name": next(iter(providers))}
    return {
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": f"{_TYPE}.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": providers,
            "rules": [{"match": {"prefix": "/", "headers": [is_token]}, "requires": required}],
        },
    }


def bootstrap(
    port: int,
    source: str,
    backends: dict[str, int],
    home: Path,
    *,
    admin: str = "admin.sock",
    before: tuple[dict[str, Any], ...] = (),
) -> dict[str, Any]:
    """Envoy's whole configuration."""
    (home / "gateway").mkdir(exist_ok=True)
    manager = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "door",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {"match": {"prefix": "/"}, "route": {"cluster": "deployments", "timeout": "20s"}}
                    ],
                }
            ]
        },
        "http_filters": [*before, _lua(source), _router()],
        "access_log": [ends_log(home / "gateway")],
    }
    listener = {
        "name": "door",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "per_connection_buffer_limit_bytes": BODY_LIMIT_BYTES,
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {
        "admin": {"address": {"pipe": {"path": str(home / admin)}}},
        "static_resources": {"listeners": [listener], "clusters": [cluster(backends)]},
    }


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-3000:]
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(f"nothing listens on {port} after {_READY_S} s: {log.read_text()[-3000:]}")


@contextmanager
def running(command: list[Any], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that listens on a port, from its start to its end."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=ROOT,
            stdout=file,
            stderr=file,
            restore_signals=False,  # a file that may not grow is an error to it, as here, and not its end
        )
    try:
        wait_for(port, process, log)
        yield process
    finally:
        process.terminate()
        process.wait(timeout=10)


@contextmanager
def stand_in(folder: Path, name: str, port: int | None = None) -> Iterator[int]:
    """A stand-in for vLLM that says the digest of the deployment; its port."""
    port = port or free_port()
    command = [
        sys.executable,
        "-m",
        "tests.servers.openai_stand_in",
        port,
        "--digest",
        DIGESTS[name],
        "--remember",
    ]
    with running(command, port, folder / f"{name}.log"):
        yield port


@contextmanager
def envoy_of(folder: Path, configuration: dict[str, Any], port: int) -> Iterator[subprocess.Popen[bytes]]:
    file = folder / "bootstrap.json"
    file.write_text(json.dumps(configuration))
    options = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning", *AT_ONCE)
    command = [ENVOY, "-c", file, *options]
    with running(command, port, folder / "envoy.log") as process:
        yield process


def new_key(key_id: str | None = None) -> str:
    """The text of an API key."""
    key_id = key_id or base64.b32encode(secrets.token_bytes(10)).decode().lower()[:12]
    return f"llma_{key_id}_{secrets.token_urlsafe(32)}"


def created(key: str, tenant: str, **more: Any) -> dict[str, Any]:
    """The event of a key that was made."""
    return {
        "event": "created",
        "id": key.split("_")[1],
        "hash": hashlib.sha256(key.encode()).hexdigest(),
        "tenant": tenant,
        "name": "ci",
        "actor": "ada",
        "models": None,
        "risk_classes": None,
        "limits": None,
        "created": time.time(),
        "expires": None,
        "by": "tests",
    } | more


def tenant(name: str, models: dict[str, str], **more: Any) -> dict[str, Any]:
    """A tenant's line: its models with their risk classes."""
    classes = {model: {"risk_class": risk_class} for model, risk_class in models.items()}
    return {
        "tenant": name,
        "models": classes,
        "risk_classes": ["minimal", "limited", "high"],
        "limits": None,
        "jwt": None,
    } | more


def backend(
    deployment: str, weight: int = 100, version: str = "v1", names: tuple[str, ...] = ("production",)
) -> dict[str, Any]:
    digest = DIGESTS[deployment]
    return {
        "deployment": deployment,
        "version": version,
        "digest": digest,
        "weight": weight,
        "names": list(names),
    }


def route(name: str, model: str, *backends: dict[str, Any]) -> dict[str, Any]:
    return {"tenant": name, "model": model, "key": ENGINE_KEY, "backends": list(backends)}


class Folder:
    """The journals and the spool of a gateway."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / "gateway"

    def append(self, journal: str, *events: dict[str, Any]) -> None:
        with (self.folder / f"{journal}.jsonl").open("a") as file:
            file.write("".join(json.dumps(event) + "\n" for event in events))

    def records(self, kind: str | None = None) -> list[dict[str, Any]]:
        files = sorted((self.folder / "spool").glob("*.jsonl"))
        lines = [line for file in files for line in file.read_text().splitlines()]
        return [record for record in map(json.loads, lines) if kind in (None, record["e"])]

    def record(self, kind: str, request_id: str) -> dict[str, Any]:
        """The one record of this kind of a request."""
        [found] = [record for record in self.records(kind) if record["id"] == request_id]
        return found


class Gateway(Folder):
    """A running gateway, its folder, and a client."""

    process_id: int  # of Envoy, for those who end it

    def __init__(self, home: Path, port: int, backends: dict[str, int]) -> None:
        super().__init__(home)
        self.port, self.backends = port, backends
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20)

    def __enter__(self) -> "Gateway":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def key(self, name: str = "team-a", **more: Any) -> str:
        """Makes an API key."""
        key = new_key()
        self.append("keys", created(key, name, **more))
        return key

    def ask(self, key: str | None, *, path: str = CHAT, headers: Any = (), **body: Any) -> httpx.Response:
        """A chat's question; members of the body beside the usual ones."""
        given = {"authorization": f"Bearer {key}"} if key else {}
        return self.client.post(path, json=question(**body), headers=given | dict(headers))

    def raw(self, line: str, *headers: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body of a request that is sent as it stands."""
        head = "\r\n".join(
            [line, "host: a", "connection: close", f"content-length: {len(body)}", *headers, "", ""]
        )
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as client:
            client.sendall(head.encode() + body)
            with HTTPResponse(client) as answer:
                answer.begin()
                return answer.status, answer.read()

    def seen(self, deployment: str = "d1") -> list[dict[str, Any]]:
        """What arrived at a backend."""
        found = httpx.get(f"http://127.0.0.1:{self.backends[deployment]}/seen").json()
        return [each for each in found if not each["line"].startswith("GET /seen")]

    def log(self) -> str:
        return (self.home / "envoy.log").read_text()


def concurrently(gateway: Gateway, key: str, count: int, **members: Any) -> list[httpx.Response]:
    """The answers to as many questions at once."""
    body = json.dumps(question(**members)).encode()
    lines = [
        f"POST {CHAT} HTTP/1.1",
        "host: a",
        f"authorization: Bearer {key}",
        f"content-length: {len(body)}",
    ]
    sent = "\r\n".join([*lines, "", ""]).encode() + body

    async def ask() -> httpx.Response:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(sent)
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = httpx.Headers(dict(line.split(": ", 1) for line in lines if line))
        content = await reader.readexactly(int(headers["content-length"]))
        writer.close()
        return httpx.Response(int(status.split()[1]), headers=headers, content=content)

    async def ask_all() -> list[httpx.Response]:
        return await asyncio.wait_for(asyncio.gather(*(ask() for _ in range(count))), timeout=20)

    return asyncio.run(ask_all())


def question(**members: Any) -> dict[str, Any]:
    return {
        "model": "support_bot",
        "messages": [{"role": "user", "content": "Where is my invoice?"}],
    } | members


def error_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of a refusal, which is in OpenAI's shape."""
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}, error
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, error["code"]
