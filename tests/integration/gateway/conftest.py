"""A gateway with two deployments behind it, started once; tests make keys and tenants of their own."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gateway.gateways import (
    DIGESTS,
    Folder,
    Gateway,
    backend,
    bootstrap,
    envoy_of,
    route,
    script,
    stand_in,
    tenant,
)
from tests.servers.ports import free_port

MODELS = {"support_bot": "limited", "screening": "high", "idle_bot": "minimal"}


@contextmanager
def started(home: Path, backends: dict[str, int], **more: Any) -> Iterator[Gateway]:
    port = free_port()
    configuration = bootstrap(port, script(home), backends, home, **more)
    with envoy_of(home, configuration, port), Gateway(home, port, backends) as running:
        yield running


def prepared(home: Path) -> Path:
    """A state folder with two tenants."""
    (home / "gateway" / "spool").mkdir(parents=True)
    writer = Folder(home)
    writer.append("tenants", *(tenant(name, MODELS) for name in ("team-a", "team-b")))
    for name in ("team-a", "team-b"):
        two = (backend("d1", 90), backend("d2", 10, "v2", ("candidate",)))
        writer.append("routes", route(name, "support_bot", *two), route(name, "screening", backend("d1")))
    writer.append("keys")
    return home


@pytest.fixture(scope="session")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    folder = tmp_path_factory.mktemp("stand-ins")
    with ExitStack() as stack:
        yield {name: stack.enter_context(stand_in(folder, name)) for name in DIGESTS}


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory, backends: dict[str, int]) -> Iterator[Gateway]:
    with started(prepared(tmp_path_factory.mktemp("gateway")), backends) as running:
        yield running
