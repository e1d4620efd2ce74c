"""The gateways that are compared, each before the same two stand-ins for vLLM, all on 127.0.0.1.

The stand-in for whole answers is an Envoy that has its answer ready, so that it is never the bottleneck; that
for streams is `stream_stand_in.py`. Ours runs as `llm-assets up` runs it: API keys, limits (too high to be
reached), records of every request with the collector that seals them, the served digest compared.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from benchmarks.gateway_load import Question
from benchmarks.gateway_stand_ins import DIGEST, MODEL, StandIns, envoy, running, wait_listening
from benchmarks.peers import locked_environment
from llm_assets.installation.settings import find_settings
from resources.gateway.api_keys import KEYS_FILE, create_key
from resources.gateway.envoy import EnvoyGateway
from resources.gateway.envoy_settings import GatewaySettings
from resources.gateway.journals import Journal
from resources.gateway.limits import Limits
from resources.local.gateway import LocalGateway
from resources.local.serving.servers import SOCKETS
from resources.seams.serving import WHOLE, Backend, Route
from tests.servers.ports import free_port

TENANT, STREAMING = "team-a", "streaming_bot"
HIGH = 10**9
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


@contextmanager
def direct(folder: Path, behind: StandIns) -> Iterator[Gateway]:
    yield Gateway(
        name="the stand-in alone",
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
            name="bare Envoy",
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
        with (
            running(command, folder, "collector", cwd=here.root, env=environment) as collector,
            asked_for_health(gateway.url),
        ):
            headers = {"Authorization": f"Bearer {key}", "Host": f"{TENANT}.llm.localhost"}
            pids = (record.pid, collector.pid)
            yield Gateway(name="llm-assets", url=f"{gateway.url}/v1", headers=headers, pids=pids)
    finally:
        gateway.stop()


@contextmanager
def asked_for_health(url: str) -> Iterator[None]:
    """Every second, as the keeper does: the gateway then looks for clients that went away."""
    over = threading.Event()

    def ask() -> None:
        while not over.wait(1):
            httpx.get(f"{url}/healthz", timeout=30)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        over.set()
        asking.join()


def _publish(settings: GatewaySettings, behind: StandIns) -> str:
    """What a stack with these two deployments has written; a key of the tenant."""
    listening, folder = {MODEL: behind.whole_socket, STREAMING: behind.streams_socket}, settings.folder
    local = LocalGateway(home=folder.parent)
    sockets = folder.parent / SOCKETS
    sockets.mkdir(parents=True)
    for model, path in listening.items():
        (sockets / f"{model}.sock").symlink_to(path)
        local.publish(_route(model))
    limits = dict.fromkeys(("requests_per_minute", "concurrent_requests", "tokens_per_minute"), HIGH)
    models = {model: {"risk_class": "limited"} for model in listening}
    tenant = {"tenant": TENANT, "models": models, "risk_classes": ["limited"], "limits": limits, "jwt": None}
    Journal(folder / "tenants.jsonl").append(tenant)
    keys = Journal(folder / KEYS_FILE)
    return create_key(keys, tenant=TENANT, name="bench", actor="bench", by="bench", limits=Limits(**limits))[
        1
    ]


def _route(model: str) -> Route:
    backend = Backend(
        id=f"vllm--{model}",
        version="v1",
        digest=DIGEST,
        fingerprint="",
        address=f"unix:{SOCKETS}/{model}.sock",
        weight=WHOLE,
        since=time.time(),
    )
    return Route(tenant=TENANT, model=model, backends=(backend,), api_key="engine")


@contextmanager
def litellm(folder: Path, behind: StandIns) -> Iterator[Gateway]:
    """LiteLLM's Python proxy: one worker, its master key asked for, nothing logged anywhere."""
    programs, port = locked_environment("litellm") / "bin", free_port()
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
    command: list[str | Path] = [
        programs / "litellm",
        "--config",
        "litellm.yaml",
        "--port",
        str(port),
        "--num_workers",
        "1",
    ]
    options = ["--host", "127.0.0.1", "--telemetry", "False"]
    with running([*command, *options], folder, "litellm", env=environment) as process:
        wait_listening(port, process, folder / "litellm.log")
        headers = {"Authorization": "Bearer sk-bench"}
        url = f"http://127.0.0.1:{port}/v1"
        yield Gateway(name="LiteLLM (Python)", url=url, headers=headers, pids=(process.pid,))
