"""The door to the metrics: a real Envoy with its metrics listener, before what a collector counts."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import envoy
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from resources.audit.joining import Exchange
from resources.gateway import envoy_upstream, metrics
from resources.gateway.collector_metrics import CollectorMetrics
from resources.private_files import secret_in
from tests.servers.ports import free_port
from tests.unit.audit.spooling import request_event, response_event

BINARY = Path(envoy.__file__).parent / "_bin" / "envoy"
ADMIN = "admin.sock"
SERVER, SOCKET = "vllm--1", "1.sock"
LISTENING: envoy_upstream.Listening = {("team-a", "support_bot"): {SERVER: f"unix:sockets/{SOCKET}"}}


Series = tuple[str, frozenset[tuple[str, str]]]
"""Name and labels."""


def series(name: str, **labels: str) -> Series:
    return name, frozenset(labels.items())


def series_in(text: str) -> dict[Series, float]:
    """What has labels, and its values."""
    samples = (each for family in text_string_to_metric_families(text) for each in family.samples)
    return {series(each.name, **each.labels): each.value for each in samples if each.labels}


@dataclass(frozen=True, kw_only=True)
class MetricsDoor:
    """Envoy's metrics listener, and the collector's counts behind it."""

    url: str
    home: Path
    counted: CollectorMetrics = field(default_factory=CollectorMetrics)

    def ask(self, tenant: str = "team-a", **given: object) -> None:
        """One request that was answered, as the filter writes it down."""
        request = request_event(tenant, version="v1")
        stream = {"stream": given.pop("stream", False)}
        answer = response_event(str(request["id"]), **given)
        self.counted.requests.count(Exchange({**request, **stream}, answer, ()))

    def refuse(self, tenant: str | None = "team-a", **given: object) -> None:
        """One request that was refused."""
        self.counted.requests.count(Exchange(None, {"e": "denied", "id": "1", "tenant": tenant, **given}, ()))

    def series(self) -> dict[Series, float]:
        """The requests' series as a scrape sees them."""
        return series_in(httpx.get(f"{self.url}/metrics/audit", headers=self.headers).text)

    @property
    def headers(self) -> dict[str, str]:
        """What Prometheus sends."""
        return {"authorization": f"Bearer {secret_in(self.home / metrics.TOKEN_FILE)}"}


MakeDoor = Callable[[], MetricsDoor]


@pytest.fixture(scope="module")
def make_door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeDoor]:
    """Starts doors; they end with the module."""
    with ExitStack() as stack:

        def make() -> MetricsDoor:
            home, port = tmp_path_factory.mktemp("home"), free_port()
            for name in ("gateway", "audit"):
                (home / name).mkdir()
            door = MetricsDoor(url=f"http://127.0.0.1:{port}", home=home)
            stack.enter_context(_envoy(door, port))
            stack.enter_context(door.counted.shown(home / "audit"))
            return door

        yield make


@pytest.fixture(scope="module")
def door(make_door: MakeDoor) -> MetricsDoor:
    return make_door()


@contextmanager
def _envoy(door: MetricsDoor, port: int) -> Iterator[None]:
    """Envoy with nothing but the metrics listener, and the vLLM server `SERVER` of the test."""
    folder = door.home / "gateway"
    upstream = envoy_upstream.clusters(LISTENING, "1")["resources"]
    servers = [{name: value for name, value in each.items() if name != "@type"} for each in upstream]
    bootstrap = {
        "admin": {"address": {"pipe": {"path": ADMIN}}},
        "static_resources": {
            "listeners": [metrics.listener(port, door.home)],
            "clusters": [*metrics.clusters(ADMIN, f"../audit/{metrics.COLLECTOR_SOCKET}"), *servers],
        },
    }
    (folder / "bootstrap.json").write_text(json.dumps(bootstrap))
    command: list[str | Path] = [
        BINARY,
        "-c",
        "bootstrap.json",
        "--concurrency",
        "1",
        "--use-dynamic-base-id",
        "-l",
        "warn",
    ]
    with (folder / "envoy.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while not _answers(f"{door.url}/metrics", door.headers):
            assert process.poll() is None, (folder / "envoy.log").read_text()
            assert time.monotonic() < deadline, (folder / "envoy.log").read_text()
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)


def _answers(url: str, headers: dict[str, str]) -> bool:
    try:
        return httpx.get(url, headers=headers).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
