"""Where the gateway seam is filled, for its contract tests: what each implementation has to bring along."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from resources.gateway.api_keys import create_key
from resources.gateway.envoy import EnvoyGateway
from resources.gateway.envoy_settings import GatewaySettings
from resources.gateway.journals import Journal
from resources.local.gateway import LocalGateway
from resources.local.serving.servers import SOCKETS
from resources.seams.gateway import Gateway
from tests.integration.gateway.whole_gateways import Deployment, stand_ins
from tests.servers.ports import free_port

TENANT, MODELS = "team-a", ("support_bot", "faq")
BACKENDS = tuple(
    Deployment(tenant=TENANT, model=model, version=version) for model in MODELS for version in ("v1", "v2")
)


@dataclass(frozen=True, kw_only=True)
class Site:
    """An implementation, backends that answer, and one tenant that may ask their models.

    Attributes:
        addresses: By its id, where a backend of `BACKENDS` is to be found.
        start: Starts the gateway and waits until it answers.
        ask: Asks for a model, as the tenant.
    """

    gateway: Gateway
    addresses: Mapping[str, str]
    start: Callable[[], None]
    ask: Callable[[str], httpx.Response]


@contextmanager
def local_site(home: Path) -> Iterator[Site]:
    """One Envoy of this machine, with its own filter."""
    envoy = EnvoyGateway(settings=GatewaySettings(folder=home / "gateway", port=free_port()))
    models = {model: {"risk_class": "limited"} for model in MODELS}
    line = {"tenant": TENANT, "models": models, "risk_classes": ["limited"], "limits": None, "jwt": None}
    Journal(envoy.folder / "tenants.jsonl").append(line)
    _, key = create_key(
        Journal(envoy.folder / "keys.jsonl"), tenant=TENANT, name="test", actor="a test", by="a test"
    )

    def start() -> None:
        envoy.start()
        envoy.wait_ready()

    headers = {"authorization": f"Bearer {key}"}
    with (
        stand_ins(home, BACKENDS),
        httpx.Client(base_url=envoy.address_of(TENANT), headers=headers, trust_env=False) as client,
    ):

        def ask(model: str) -> httpx.Response:
            asked = [{"role": "user", "content": "Who are you?"}]
            return client.post("/chat/completions", json={"model": model, "messages": asked})

        yield Site(
            gateway=LocalGateway(home=home),
            addresses={each.id: f"unix:{SOCKETS}/{each.id}.sock" for each in BACKENDS},
            start=start,
            ask=ask,
        )
        envoy.stop()
