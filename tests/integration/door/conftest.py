"""What the tests of the door share: a real Envoy whose Lua filter is a stand-in of a few lines."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from resources.gateway.cluster_file import ClusterFile
from resources.gateway.envoy import EnvoyGateway
from resources.gateway.envoy_settings import GatewaySettings
from resources.local.serving.servers import SOCKETS
from resources.waiting import wait_until
from tests.servers.echo import Echo, echoing
from tests.servers.ports import free_port

STAND_IN_FILTER = Path(__file__).parent / "lua"
# Short, so that a test of slow clients is quick.
QUICK: dict[str, Any] = {
    "request_headers_s": 0.5,
    "request_s": 1,
    "answer_idle_s": 2,
    "max_body_bytes": 64 * 1024,
    "max_connections": 60,
}

MakeGateway = Callable[..., EnvoyGateway]


def serve(gateway: EnvoyGateway, *known: tuple[str, Path]) -> None:
    """Lets the gateway know these deployments, each with its server's socket, and waits until it does."""
    sockets = gateway.folder.parent / SOCKETS
    sockets.mkdir(exist_ok=True)
    endpoints = {}
    for number, (deployment, path) in enumerate(
        known
    ):  # replicas of one deployment: the gateway tells them by its id
        link = sockets / f"{hashlib.sha256(str(path).encode()).hexdigest()[:16]}.sock"
        if not link.is_symlink():
            link.symlink_to(path)
        endpoints["team-a", f"bot_{number}"] = {deployment: f"unix:{SOCKETS}/{link.name}"}
    version = ClusterFile(gateway.settings.clusters).change(lambda _before: endpoints)
    wait_until(
        lambda: gateway.admin.clusters_version() == version,
        what="the endpoints",
        timeout_s=10,
        every_s=0.02,
    )


def settings_in(home: Path, **changed: Any) -> GatewaySettings:
    values = {"folder": home / "gateway", "port": free_port(), "lua_folder": STAND_IN_FILTER, **changed}
    return GatewaySettings(**values)


@pytest.fixture
def make_gateway(tmp_path: Path) -> Iterator[MakeGateway]:
    made: list[EnvoyGateway] = []

    def make(**changed: Any) -> EnvoyGateway:
        settings = settings_in(tmp_path / f"home-{len(made)}", **changed)
        made.append(EnvoyGateway(settings=settings))
        made[-1].start()
        made[-1].wait_ready()
        return made[-1]

    yield make
    for gateway in made:
        gateway.stop()


@pytest.fixture(scope="module")
def echo() -> Iterator[Echo]:
    with echoing() as server:
        yield server


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, echo: Echo) -> Iterator[EnvoyGateway]:
    """One for the whole module, with the deployment `d1`."""
    gateway = EnvoyGateway(settings=settings_in(tmp_path_factory.mktemp("door") / "home", **QUICK))
    gateway.start()
    gateway.wait_ready()
    serve(gateway, ("d1", echo.path))
    yield gateway
    gateway.stop()


@pytest.fixture
def client(gateway: EnvoyGateway) -> Iterator[httpx.Client]:
    headers = {"x-deployment": "d1"}
    with httpx.Client(base_url=gateway.url, headers=headers, trust_env=False, timeout=20) as client:
        yield client
