"""The gateway as operators run it (its own configuration of Envoy, its own filter) before stand-ins for vLLM.

The stand-ins of all deployments are one process, each on a socket of its own with a digest of its own, so
that an answer says whose it is.
"""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from resources.gateway.cluster_file import ClusterFile
from resources.gateway.envoy import EnvoyGateway
from resources.gateway.envoy_settings import GatewaySettings
from resources.gateway.envoy_upstream import Listening
from resources.gateway.journals import Journal
from resources.gateway.metrics import TOKEN_FILE
from resources.local.serving.servers import SOCKETS
from resources.waiting import wait_until
from tests.conftest import ROOT
from tests.servers.openai_stand_in import Connection, Server
from tests.servers.ports import free_port

ENGINE_KEY = "the-engine's-own-key"


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A version of a tenant's model that is live."""

    tenant: str
    model: str
    version: str = "v1"
    weight: int = 100
    names: tuple[str, ...] = ("production",)

    @property
    def id(self) -> str:
        return f"{self.tenant}--{self.model}--{self.version}"

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.id.encode()).hexdigest()}"

    def as_backend(self) -> dict[str, Any]:
        own = {"version": self.version, "digest": self.digest, "weight": self.weight}
        return {"deployment": self.id, **own, "names": list(self.names)}


class WholeGateway:
    """A running gateway, its journals, and how to start it again."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self.folder = home / "gateway"
        self.keys = Journal(self.folder / "keys.jsonl")
        self.tenants = Journal(self.folder / "tenants.jsonl")
        self.routes = Journal(self.folder / "routes.jsonl")
        given = {"port": free_port(), "metrics_port": free_port(), **settings}
        self.envoy = EnvoyGateway(settings=GatewaySettings(folder=self.folder, **given))

    @property
    def port(self) -> int:
        return self.envoy.settings.port

    @property
    def jwt_file(self) -> Path:
        return self.envoy.settings.jwt

    def start(self) -> None:
        self.envoy.start()
        self.envoy.wait_ready()

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.envoy.settings.metrics_port}"

    @property
    def metrics_headers(self) -> dict[str, str]:
        """What Prometheus sends."""
        return {"authorization": f"Bearer {(self.folder.parent / TOKEN_FILE).read_text()}"}

    def publish(self, deployments: Sequence[Deployment]) -> None:
        """Tells it of deployments whose stand-ins listen, and waits until it knows them."""
        known: Listening = {}
        for each in deployments:
            known.setdefault((each.tenant, each.model), {})[each.id] = f"unix:{SOCKETS}/{each.id}.sock"
        version = ClusterFile(self.envoy.settings.clusters).change(lambda _before: known)
        admin = self.envoy.admin
        wait_until(
            lambda: admin.clusters_version() == version, what="the endpoints", timeout_s=20, every_s=0.02
        )
        lines: dict[tuple[str, str], list[Any]] = {(each.tenant, each.model): [] for each in deployments}
        for each in deployments:
            lines[each.tenant, each.model].append(each.as_backend())
        self.routes.append(
            *(
                {"tenant": tenant, "model": model, "key": ENGINE_KEY, "backends": backends}
                for (tenant, model), backends in lines.items()
            )
        )


@contextmanager
def whole_gateway(home: Path, deployments: Sequence[Deployment], **settings: Any) -> Iterator[WholeGateway]:
    gateway = WholeGateway(home, **settings)
    with stand_ins(home, deployments):
        try:
            gateway.start()
            gateway.publish(deployments)
            yield gateway
        finally:
            gateway.envoy.stop()


@contextmanager
def stand_ins(home: Path, deployments: Sequence[Deployment]) -> Iterator[None]:
    """Stand-ins that say these deployments' digests, where the gateway of that state folder finds them."""
    told = {f"{each.id}.sock": each.digest for each in deployments}
    command = [sys.executable, "-m", "tests.integration.gateway.whole_gateways", json.dumps(told)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    sockets = home / SOCKETS  # they run there: the whole path may be too long for an address
    sockets.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(command, cwd=sockets, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout
        try:
            assert process.stdout.readline()
            yield
        finally:
            process.kill()


async def _serve_all(digests: Mapping[str, str]) -> None:
    loop = asyncio.get_running_loop()
    for path, digest in digests.items():
        server = Server(digest, remember=False)
        await loop.create_unix_server(partial(Connection, server), path, backlog=1024)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve_all(json.loads(sys.argv[1])))
