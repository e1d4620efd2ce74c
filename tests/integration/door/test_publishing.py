"""From a deploy to the door: real Envoy, the real filter, and stand-ins for vLLM that come and go."""

import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_assets.servings import publish
from resources.artifact_store.store import ArtifactStore
from resources.gateway.api_keys import create_key
from resources.gateway.cluster_file import ClusterFile
from resources.gateway.envoy import EnvoyGateway
from resources.gateway.envoy_settings import GatewaySettings
from resources.gateway.errors import GatewayError
from resources.gateway.journals import Journal
from resources.local.gateway import ROUTES, LocalGateway
from resources.local.serving.deployment_folder import STATE_FILE
from resources.local.serving.local_serving import LocalServing
from resources.local.serving.servers import SOCKETS
from resources.seams.serving import WHOLE, Backend, Log, Route, Serving
from tests.integration.serving.conftest import (
    MODEL,
    TENANT,
    MakeServing,
    engine_in,
    make_serving,
    quiet,
    stop_all,
    store,
)
from tests.integration.serving.conftest import deploy as deploy_untold
from tests.servers.ports import free_port
from tests.servers.tls import SELF_SIGNED

__all__ = ["make_serving", "store"]

OTHER = "faq"
ASKED = {"model": MODEL, "messages": [{"role": "user", "content": "Who are you?"}]}


def told(serving: LocalServing) -> LocalGateway:
    return LocalGateway(home=serving.home)


def deploy(serving: LocalServing, wanted: Serving | tuple[Serving, ...], *, log: Log = quiet) -> Route:
    return deploy_untold(serving, wanted, publish=told(serving).publish, log=log)


def stop(serving: LocalServing, tenant: str, model: str) -> None:
    told(serving).withdraw(tenant, model)
    serving.stop(tenant, model)


def tenant_line(name: str) -> dict[str, Any]:
    models = {model: {"risk_class": "limited"} for model in (MODEL, OTHER)}
    return {"tenant": name, "models": models, "risk_classes": ["limited"], "limits": None, "jwt": None}


@pytest.fixture
def serving(tmp_path: Path, store: ArtifactStore) -> Iterator[LocalServing]:
    engines = engine_in(tmp_path / "engines")
    serving = LocalServing(home=tmp_path / "home", engines=engines, store=store)
    yield serving
    stop_all(serving)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[EnvoyGateway]:
    folder = tmp_path / "home" / "gateway"
    gateway = EnvoyGateway(settings=GatewaySettings(folder=folder, port=free_port()))
    Journal(folder / "tenants.jsonl").append(tenant_line(TENANT))
    gateway.start()
    gateway.wait_ready()
    yield gateway
    gateway.stop()


@pytest.fixture
def door(gateway: EnvoyGateway) -> Iterator[httpx.Client]:
    journal = Journal(gateway.folder / "keys.jsonl")
    _, key = create_key(journal, tenant=TENANT, name="test", actor="a test", by="a test")
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=gateway.address_of(TENANT), headers=headers, trust_env=False) as client:
        yield client


def ask(door: httpx.Client, **options: Any) -> httpx.Response:
    return door.post("/chat/completions", json={**ASKED, **options})


def answered_by(response: httpx.Response) -> str:
    """The version, which the answer's text, its receipt and its digest have to agree on."""
    version = str(response.headers["x-llm-version"])
    assert response.json()["choices"][0]["message"]["content"] == version
    assert response.headers["x-llm-digest"] == f"sha256:{version}"
    return version


class Asking:
    """Asks without pause in some threads and keeps the status and version of every answer."""

    def __init__(self, door: httpx.Client, threads: int = 4) -> None:
        self.answers: list[tuple[int, str]] = []
        self._door, self._over = door, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(threads)]

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                response = ask(self._door)
                version = answered_by(response) if response.is_success else response.text
                self.answers.append((response.status_code, version))
            except (httpx.TransportError, AssertionError) as fault:
                self.answers.append((0, repr(fault)))

    def __enter__(self) -> "Asking":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def test_promotions_under_load_lose_no_request(
    serving: LocalServing, door: httpx.Client, make_serving: MakeServing
) -> None:
    versions = [make_serving(f"v{number}") for number in range(1, 5)]
    deploy(serving, versions[0])
    with Asking(door) as asking:
        for each in versions[1:]:
            deploy(serving, each)
            before = len(asking.answers)
            assert answered_by(ask(door)) == each.version
            while len(asking.answers) < before + 20:
                time.sleep(0.01)
    assert {status for status, _ in asking.answers} == {200}
    assert {version for _, version in asking.answers} == {"v1", "v2", "v3", "v4"}
    answers = [version for _, version in asking.answers]
    assert answers[-4:] == ["v4"] * 4


def test_an_answer_that_is_still_being_given_is_given_to_its_end(
    serving: LocalServing, door: httpx.Client, make_serving: MakeServing
) -> None:
    deploy(serving, make_serving("v1", behaviour={"token_s": 0.8}))
    with door.stream("POST", "/chat/completions", json={**ASKED, "stream": True}) as response:
        lines = response.iter_lines()
        first = next(lines)
        deploy(serving, make_serving("v2"))
        text = "".join([first, *lines])
    assert (response.status_code, response.headers["x-llm-version"]) == (200, "v1")
    assert text.endswith("[DONE]")
    assert answered_by(ask(door)) == "v2"


def test_versions_share_the_requests_and_each_can_be_asked_by_its_names(
    serving: LocalServing, door: httpx.Client, make_serving: MakeServing
) -> None:
    one, two = make_serving("v1"), make_serving("v2")
    deploy(serving, _shares((one, 80, ("production",)), (two, 20, ("candidate",))))
    seen = Counter(answered_by(ask(door, user=str(number))) for number in range(100))
    assert 5 <= seen["v2"] <= 40
    for name, version in (("production", "v1"), ("candidate", "v2"), ("v2", "v2"), ("v1", "v1")):
        assert answered_by(ask(door, model=f"{MODEL}@{name}")) == version
    assert ask(door, model=f"{MODEL}@previous").status_code == 404
    deploy(serving, _shares((two, 100, ("candidate", "production"))))
    assert answered_by(ask(door, model=f"{MODEL}@candidate")) == "v2"


def _shares(*shares: tuple[Serving, int, tuple[str, ...]]) -> tuple[Serving, ...]:
    return tuple(replace(each, weight=weight, aliases=names) for each, weight, names in shares)


def test_what_is_stopped_is_told_as_not_live_and_comes_back(
    serving: LocalServing, gateway: EnvoyGateway, door: httpx.Client, make_serving: MakeServing
) -> None:
    deploy(serving, make_serving("v1"))
    stop(serving, TENANT, MODEL)
    answer = ask(door)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_not_live")
    assert int(answer.headers["retry-after"]) > 0
    deploy(serving, make_serving("v1"))
    assert answered_by(ask(door)) == "v1"
    gateway.stop()
    told(serving).publish_all(serving.routes())
    gateway.start()
    gateway.wait_ready()
    assert answered_by(ask(door)) == "v1"
    assert len(Journal(gateway.folder / "routes.jsonl").path.read_text().splitlines()) == 1


def test_a_deployment_that_nobody_can_read_gets_no_requests_and_keeps_none_from_others(
    serving: LocalServing, door: httpx.Client, make_serving: MakeServing
) -> None:
    deploy(serving, make_serving("v1"))
    deploy(serving, make_serving("v2", model=OTHER))
    (serving.servers.folder(TENANT, MODEL).path / STATE_FILE).write_text("damaged")
    told(serving).publish_all(serving.routes())
    assert ask(door).status_code == 503
    assert answered_by(ask(door, model=OTHER)) == "v2"


def test_a_version_whose_server_died_does_not_hold_up_the_other(
    serving: LocalServing, door: httpx.Client, make_serving: MakeServing
) -> None:
    one, two = make_serving("v1"), make_serving("v2")
    deploy(serving, _shares((one, 50, ()), (two, 50, ())))
    (dead,) = [s for s in serving.servers.of(TENANT, MODEL) if s.attributes["version"] == "v2"]
    serving.servers.processes.stop(dead.name)
    took: dict[int, list[float]] = {200: [], 503: []}
    for number in range(40):
        started = time.monotonic()
        status = ask(door, user=str(number)).status_code
        took[status].append(time.monotonic() - started)
    assert len(took[200]) > 5
    assert len(took[503]) > 5
    assert max(took[200]) < 1
    assert max(took[503]) < 3


def test_a_deployment_that_the_gateway_does_not_take_leaves_requests_where_they_go(
    serving: LocalServing, gateway: EnvoyGateway, make_serving: MakeServing, door: httpx.Client
) -> None:
    deploy(serving, make_serving("v1"))
    envoy = gateway.start()
    hurried = LocalGateway(home=serving.home, applied_s=1)
    known = serving.route(TENANT, MODEL)
    moved = replace(known, backends=(replace(known.production, id="another"),))
    os.kill(envoy.pid, signal.SIGSTOP)
    try:
        with pytest.raises(GatewayError, match=r"list of servers with those of team-a(.|\n)*What was live"):
            hurried.publish(moved)
    finally:
        os.kill(envoy.pid, signal.SIGCONT)
    assert answered_by(ask(door)) == "v1"


def test_over_tls_a_deployment_is_confirmed_as_well(tmp_path: Path) -> None:
    pair: dict[str, Any] = {"certificate": tmp_path / "certificate.pem", "key": tmp_path / "key.pem"}
    made = ["openssl", *SELF_SIGNED, "-keyout", str(pair["key"]), "-out", str(pair["certificate"])]
    subprocess.run(made, check=True, capture_output=True)
    folder = tmp_path / "home" / "gateway"
    gateway = EnvoyGateway(settings=GatewaySettings(folder=folder, port=free_port(), **pair))
    gateway.start()
    gateway.wait_ready()
    try:
        published = LocalGateway(home=folder.parent, applied_s=10).publish(a_route("d1"))
    finally:
        gateway.stop()
    assert published == "counts"


def a_route(backend: str) -> Route:
    known = Backend(
        id=backend,
        version="v1",
        digest="sha256:v1",
        fingerprint="",
        address=f"unix:{SOCKETS}/{backend}.sock",
        weight=WHOLE,
        since=0,
    )
    return Route(tenant=TENANT, model=MODEL, backends=(known,), api_key="key")


def test_where_no_gateway_runs_a_route_is_kept_for_the_next_and_that_is_said(tmp_path: Path) -> None:
    gateway = LocalGateway(home=tmp_path / "home")
    assert gateway.address_of(TENANT) is None
    assert gateway.publish(a_route("d1")) == "no gateway runs"
    said: list[str] = []
    publish(gateway, a_route("d2"), said.append)
    assert said == [
        "No gateway runs: the route of team-a/support_bot counts once `llm-assets up` has started one."
    ]


def test_ten_thousand_deployments_load_and_one_more_is_live_within_seconds(
    serving: LocalServing, gateway: EnvoyGateway, make_serving: MakeServing, door: httpx.Client
) -> None:
    gateway.stop()
    local = told(serving)
    _pretend_many(local.folder)
    started = time.monotonic()
    gateway.start()
    gateway.wait_ready()
    assert time.monotonic() - started < 30
    deploy(serving, make_serving("v1"))
    known = serving.route(TENANT, MODEL)
    local.withdraw(TENANT, MODEL)
    assert ask(door).status_code == 503
    started = time.monotonic()
    local.publish(known)
    assert answered_by(ask(door)) == "v1"
    assert time.monotonic() - started < 5
    assert len(ClusterFile(gateway.settings.clusters).listening()) == MANY + 1


MANY = 10_000


def _pretend_many(folder: Path) -> None:
    """Tenants with a deployment each, as the journals and the endpoints of so many would be."""
    names = [f"tenant-{number}" for number in range(MANY)]
    pretended = {(name, MODEL): {name: f"unix:sockets/{name}.sock"} for name in names}
    ClusterFile(folder / "xds" / "clusters.json").change(lambda _before: pretended)
    backend = {"version": "v", "digest": "sha256:v", "weight": 100, "names": ["production"]}
    Journal(folder / ROUTES).append(
        *(
            {"tenant": name, "model": MODEL, "key": "k", "backends": [{**backend, "deployment": name}]}
            for name in names
        )
    )
    Journal(folder / "tenants.jsonl").append(*(tenant_line(name) for name in names))
