"""The servers behind the object stores, each started once, and stores in folders of their own."""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from resources.object_stores.objects import ObjectStore
from resources.object_stores.opening import open_object_store
from resources.object_stores.retries import Retries
from tests.servers.artifactory_stand_in import TOKEN, artifactory_stand_in
from tests.servers.gcs import gcs_server
from tests.servers.s3 import CREDENTIALS, s3_server
from tests.servers.tls import untrusted_server

PLACE = "llm-assets-test"  # of the bucket or repository
SERVED = ("gcs", "s3", "artifactory")
REAL = {f"real {kind}": f"LLM_ASSETS_TEST_{kind.upper()}" for kind in SERVED}


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server: its address, and how a store there is named and entered."""

    address: str
    environment: Callable[[str], dict[str, str]]
    url: Callable[[str], str]

    def enter(self, monkeypatch: pytest.MonkeyPatch, address: str | None = None) -> str:
        """Sets the environment for `address`, for instance of a proxy; the URL of an empty store there."""
        for name, value in self.environment(address or self.address).items():
            monkeypatch.setenv(name, value)
        return f"{self.url(address or self.address)}/{uuid.uuid4().hex}"


Servers = Callable[[str], Server]


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Starts each server when it is first asked for."""
    running: dict[str, Server] = {}
    with ExitStack() as stack:

        def server(kind: str) -> Server:
            if kind not in running:
                running[kind] = _start(kind, stack, tmp_path_factory.mktemp(kind))
            return running[kind]

        yield server


def _start(kind: str, stack: ExitStack, folder: Path) -> Server:
    if kind == "gcs":
        return Server(
            address=stack.enter_context(gcs_server(folder, bucket=PLACE)),
            environment=lambda address: {"STORAGE_EMULATOR_HOST": address},
            url=lambda _: f"gs://{PLACE}",
        )
    if kind == "s3":
        return Server(
            address=stack.enter_context(s3_server(bucket=PLACE)),
            environment=lambda address: CREDENTIALS | {"AWS_ENDPOINT_URL": address},
            url=lambda _: f"s3://{PLACE}",
        )
    return Server(
        address=stack.enter_context(artifactory_stand_in(folder, repository=PLACE)),
        environment=lambda _: {"ARTIFACTORY_TOKEN": TOKEN},
        url=lambda address: f"artifactory+{address}/{PLACE}",
    )


def _kinds() -> list[object]:
    real = [pytest.param(kind, marks=pytest.mark.cloud) for kind, name in REAL.items() if name in os.environ]
    return ["disk", *SERVED, *real]


@pytest.fixture(params=_kinds())
def url(
    request: pytest.FixtureRequest, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The URL of an empty store, of each kind that there is here."""
    if request.param == "disk":
        return f"file:{tmp_path / 'store'}"
    if request.param in REAL:
        return f"{os.environ[REAL[request.param]]}/{uuid.uuid4().hex}"
    return servers(request.param).enter(monkeypatch)


@pytest.fixture
def store(url: str) -> ObjectStore:
    return open_object_store(url)


@pytest.fixture
def make_file(tmp_path: Path) -> Callable[[int], Path]:
    """Makes files of random bytes."""

    def make(size_bytes: int) -> Path:
        path = tmp_path / f"source-{uuid.uuid4().hex}"
        path.write_bytes(os.urandom(size_bytes))
        return path

    return make


@pytest.fixture
def retries() -> Retries:
    """Long enough for a loaded machine, short enough for a fault to be over soon."""
    return Retries(connect_s=2, silence_s=1.5, slowest_bytes_per_s=2**22, give_up_s=20, first_pause_s=0.05)


@pytest.fixture
def tls_address(tmp_path: Path) -> Iterator[str]:
    """The address of an HTTPS server whose certificate nobody trusts."""
    with untrusted_server(tmp_path) as address:
        yield address
