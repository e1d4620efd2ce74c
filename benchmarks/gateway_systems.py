"""The gateways that are compared, each before the same two stand-ins for vLLM, all on 127.0.0.1.

The stand-in for whole answers is an Envoy that has its answer ready, so that it is never the bottleneck; that
for streams is `stream_stand_in.py`. Ours runs as `llm-assets up` runs it: API keys, limits (too high to be
reached), records of every request with the collector that seals them, the served digest compared.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.gateway_load import LoadError, Question
from benchmarks.peers import environment_of
from llm_assets.settings import find_settings
from resources.gateway.api_keys import KEYS_FILE, create_key
from resources.gateway.envoy import EnvoyGateway, envoy_program
from resources.gateway.envoy_settings import GatewaySettings
from resources.gateway.envoy_upstream import Endpoint, endpoints
from resources.gateway.files import replace_json
from resources.gateway.journals import Journal
from resources.gateway.limits import Limits
from tests.servers.ports import free_port

LITELLM = "litellm[proxy]==1.109.1"
TENANT, MODEL, STREAMING = "team-a", "support_bot", "streaming_bot"
DIGEST = "sha256:" + "d" * 64
HIGH = 10**9
READY_S = 120
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
ASKED = [
    {"role": "system", "content": "You are the support desk of a shop. " * 8},
    {"role": "user", "content": "When are you open?"},
]


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """One that runs: where and how it is asked, and the processes that are its own."""

    name: str
    url: str
    headers: dict[str, str]
    pids: tuple[int, ...]
    stream_headers: dict[str, str] = field(default_factory=dict)

    def whole(self) -> Question:
        return self._question(
            {"model": MODEL, "messages": ASKED, "temperature": 0, "max_tokens": 96}, self.headers
        )

    def stream(self) -> Question:
        body = {"model": STREAMING, "messages": ASKED, "max_tokens": 96, "stream": True}
        return self._question(body, self.headers | self.stream_headers)

    def _question(self, body: dict[str, Any], headers: dict[str, str]) -> Question:
        content = json.dumps(body).encode()
        return Question(url=f"{self.url}/chat/completions", body=content, headers=headers)


@dataclass(frozen=True, kw_only=True)
class StandIns:
    """The ports behind every gateway, and who answers whole questions there."""

    whole: int
    streams: int
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
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise LoadError(f"Nothing listens at port {port}:\n{log.read_text(errors='replace')[-3000:]}")


@contextmanager
def envoy(
    folder: Path, name: str, port: int, route: dict[str, Any], backend: dict[str, int]
) -> Iterator[int]:
    """An Envoy with one worker, one listener, no filter but the router; gives its process id."""
    manager = {
        "@type": f"{TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes(route, backend)}]
        },
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{TYPES}.http.router.v3.Router"}}],
    }
    listener = {
        "address": at(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    config = {
        "static_resources": {
            "listeners": [listener],
            "clusters": [cluster(*item) for item in backend.items()],
        }
    }
    (folder / f"{name}.json").write_text(json.dumps(config))
    command = [
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
    command = [sys.executable, "-m", "benchmarks.stream_stand_in", str(streaming), DIGEST]
    root = find_settings().root
    with (
        envoy(folder, "stand_in", whole, route, {}) as pid,
        running(command, folder, "streams", cwd=root) as process,
    ):
        wait_listening(streaming, process, folder / "streams.log")
        yield StandIns(whole=whole, streams=streaming, pid=pid)


@contextmanager
def direct(folder: Path, behind: StandIns) -> Iterator[Gateway]:
    yield Gateway(
        name="direct to the stand-in",
        url=f"http://127.0.0.1:{behind.whole}/v1",
        headers={},
        pids=(behind.pid,),
    )


@contextmanager
def bare_envoy(folder: Path, behind: StandIns) -> Iterator[Gateway]:
    port = free_port()
    backends = {"whole": behind.whole, "streams": behind.streams}
    with envoy(folder, "bare", port, {"route": {"cluster": "whole"}}, backends) as pid:
        yield Gateway(
            name="Envoy, router alone",
            url=f"http://127.0.0.1:{port}/v1",
            headers={},
            pids=(pid,),
            stream_headers={"x-streams": "yes"},
        )


@contextmanager
def ours(folder: Path, behind: StandIns) -> Iterator[Gateway]:
    home = folder / "home"
    (home / "gateway").mkdir(parents=True, mode=0o700)
    settings = GatewaySettings(folder=home / "gateway", port=free_port(), metrics_port=free_port())
    key = _publish(settings, behind)
    gateway = EnvoyGateway(settings=settings)
    here = find_settings()
    environment = os.environ | {"LLM_ASSETS_ROOT": str(here.root), "LLM_ASSETS_HOME": str(home)}
    command = [sys.executable, "-m", "llm_assets.gateway.collector"]
    record = gateway.start()
    try:
        gateway.wait_ready()
        with running(command, folder, "collector", cwd=here.root, env=environment) as collector:
            headers = {"Authorization": f"Bearer {key}", "Host": f"{TENANT}.llm.localhost"}
            pids = (record.pid, collector.pid)
            yield Gateway(name="llm-assets gateway", url=f"{gateway.url}/v1", headers=headers, pids=pids)
    finally:
        gateway.stop()


def _publish(settings: GatewaySettings, behind: StandIns) -> str:
    """What a stack with these two deployments has written; a key of the tenant."""
    ports, folder = {MODEL: behind.whole, STREAMING: behind.streams}, settings.folder
    live = [
        Endpoint(deployment=f"vllm--{model}", tenant=TENANT, model=model, address="127.0.0.1", port=port)
        for model, port in ports.items()
    ]
    replace_json(settings.endpoints, endpoints(live, "1"))
    limits = dict.fromkeys(("requests_per_minute", "concurrent_requests", "tokens_per_minute"), HIGH)
    models = {model: {"risk_class": "limited"} for model in ports}
    tenant = {"tenant": TENANT, "models": models, "risk_classes": ["limited"], "limits": limits, "jwt": None}
    Journal(folder / "tenants.jsonl").append(tenant)
    for each in live:
        backend = {"deployment": each.deployment, "version": "v1", "digest": DIGEST, "weight": 100}
        line = {
            "tenant": TENANT,
            "model": each.model,
            "key": "engine",
            "backends": [{**backend, "names": []}],
        }
        Journal(folder / "routes.jsonl").append(line)
    keys = Journal(folder / KEYS_FILE)
    return create_key(keys, tenant=TENANT, name="bench", actor="bench", by="bench", limits=Limits(**limits))[
        1
    ]


@contextmanager
def litellm(folder: Path, behind: StandIns) -> Iterator[Gateway]:
    """LiteLLM's Python proxy: one worker, its master key asked for, nothing logged anywhere."""
    programs, port = environment_of("litellm", LITELLM) / "bin", free_port()
    served = {MODEL: behind.whole, STREAMING: behind.streams}
    models = [
        {
            "model_name": model,
            "litellm_params": {
                "model": f"openai/{model}",
                "api_base": f"http://127.0.0.1:{at_port}/v1",
                "api_key": "engine",
            },
        }
        for model, at_port in served.items()
    ]
    config = {"model_list": models, "general_settings": {"master_key": "sk-bench"}}
    (folder / "litellm.yaml").write_text(yaml.safe_dump(config))
    environment = os.environ | {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "NO_PROXY": "*",
    }
    command = [programs / "litellm", "--config", "litellm.yaml", "--port", str(port), "--num_workers", "1"]
    options = ["--host", "127.0.0.1", "--telemetry", "False"]
    with running([*command, *options], folder, "litellm", env=environment) as process:
        wait_listening(port, process, folder / "litellm.log")
        headers = {"Authorization": "Bearer sk-bench"}
        url = f"http://127.0.0.1:{port}/v1"
        yield Gateway(name="LiteLLM proxy (Python)", url=url, headers=headers, pids=(process.pid,))
