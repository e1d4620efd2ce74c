"""From a deploy to the door: real Envoy, the real filter, and stand-ins for vLLM that come and go."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from resources.gateway.api_keys import create_key
from resources.gateway.cluster_file import ClusterFile
from resources.gateway.envoy import EnvoyGateway
from resources.gateway.envoy_settings import GatewaySettings
from resources.gateway.envoy_upstream import Endpoint
from resources.gateway.errors import GatewayError
from resources.gateway.journals import Journal
from resources.gateway.publishing import Live, Publication
from resources.serving.deployment_state import STATE_FILE, Deployment, LiveServer, Wanted
from resources.serving.local import LocalServing, Serving
from tests.integration.serving.conftest import STAND_IN, MakeServing, as_it_was, make_serving
from tests.servers.ports import free_port
from tests.servers.tls import SELF_SIGNED

__all__ = ["make_serving"]

TENANT, MODEL, OTHER = "team-a", "support_bot", "faq"
ASKED = {"model": MODEL, "messages": [{"role": "user", "content": "Who are you?"}]}


def quiet(line: str) -> None:
    """A log that nobody reads."""


def tenant_line(name: str) -> dict[str, Any]:
    models = {model: {"risk_class": "limited"} for model in (MODEL, OTHER)}
    return {"tenant": name, "models": models, "risk_classes": ["limited"], "limits": None, "jwt": None}


def live(serving: LocalServing) -> Live:
    folder = serving.servers.folder(TENANT, MODEL)
    deployment = folder.read()
    assert deployment is not None
    return Live(deployment=deployment, api_key=folder.api_key())


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[LocalServing]:
    executable = tmp_path / "engines" / "serve" / "bin" / "vllm"
    executable.parent.mkdir(parents=True)
    executable.write_text(f"#!{sys.executable} -IS\n{STAND_IN.read_text()}")
    executable.chmod(0o755)
    serving = LocalServing(home=str(tmp_path / "home"), engines=str(tmp_path / "engines"), gateway=True)
    yield serving
    serving.stop_all()


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
    serving.deploy(versions[0], quiet)
    with Asking(door) as asking:
        for each in versions[1:]:
            serving.deploy(each, quiet)
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
    serving.deploy(make_serving("v1", behaviour={"token_s": 0.8}), quiet)
    with door.stream("POST", "/chat/completions", json={**ASKED, "stream": True}) as response:
        lines = response.iter_lines()
        first = next(lines)
        serving.deploy(make_serving("v2"), quiet)
        text = "".join([first, *lines])
    assert (response.status_code, response.headers["x-llm-version"]) == (200, "v1")
    assert text.endswith("[DONE]")
    assert answered_by(ask(door)) == "v2"


def test_versions_share_the_requests_and_each_can_be_asked_by_its_names(
    serving: LocalServing, door: httpx.Client, make_serving: MakeServing
) -> None:
    one, two = make_serving("v1"), make_serving("v2")
    serving.deploy(_shares((one, 80, ("production",)), (two, 20, ("candidate",))), quiet)
    seen = Counter(answered_by(ask(door, user=str(number))) for number in range(100))
    assert 5 <= seen["v2"] <= 40
    for name, version in (("production", "v1"), ("candidate", "v2"), ("v2", "v2"), ("v1", "v1")):
        assert answered_by(ask(door, model=f"{MODEL}@{name}")) == version
    assert ask(door, model=f"{MODEL}@previous").status_code == 404
    serving.deploy(_shares((two, 100, ("candidate", "production"))), quiet)
    assert answered_by(ask(door, model=f"{MODEL}@candidate")) == "v2"


def _shares(*shares: tuple[Serving, int, tuple[str, ...]]) -> tuple[Wanted, ...]:
    return tuple(Wanted(serving=each, weight=weight, aliases=names) for each, weight, names in shares)


def test_what_is_stopped_is_told_as_not_live_and_comes_back(
    serving: LocalServing, gateway: EnvoyGateway, door: httpx.Client, make_serving: MakeServing
) -> None:
    serving.deploy(make_serving("v1"), quiet)
    serving.stop(TENANT, MODEL)
    answer = ask(door)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_not_live")
    assert int(answer.headers["retry-after"]) > 0
    serving.revive(TENANT, MODEL, quiet, verified=as_it_was)
    assert answered_by(ask(door)) == "v1"
    gateway.stop()
    serving.publish_all()
    gateway.start()
    gateway.wait_ready()
    assert answered_by(ask(door)) == "v1"
    assert len(Journal(gateway.folder / "routes.jsonl").path.read_text().splitlines()) == 1


def test_a_deployment_that_nobody_can_read_gets_no_requests_and_keeps_none_from_others(
    serving: LocalServing, door: httpx.Client, make_serving: MakeServing
) -> None:
    serving.deploy(make_serving("v1"), quiet)
    serving.deploy(make_serving("v2", model=OTHER), quiet)
    (serving.servers.folder(TENANT, MODEL).path / STATE_FILE).write_text("damaged")
    serving.publish_all()
    assert ask(door).status_code == 503
    assert answered_by(ask(door, model=OTHER)) == "v2"


def test_a_version_whose_server_died_does_not_hold_up_the_other(
    serving: LocalServing, door: httpx.Client, make_serving: MakeServing
) -> None:
    one, two = make_serving("v1"), make_serving("v2")
    serving.deploy(_shares((one, 50, ()), (two, 50, ())), quiet)
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
    serving.deploy(make_serving("v1"), quiet)
    envoy = gateway.start()
    hurried = Publication(home=Path(serving.home), applied_s=1)
    known = live(serving)
    moved = replace(known.deployment.servers[0], server="another")
    os.kill(envoy.pid, signal.SIGSTOP)
    try:
        with pytest.raises(GatewayError, match=r"list of servers with those of team-a(.|\n)*What was live"):
            hurried.publish(Live(deployment=Deployment(servers=(moved,)), api_key=known.api_key))
    finally:
        os.kill(envoy.pid, signal.SIGCONT)
    assert answered_by(ask(door)) == "v1"


def test_over_tls_a_deployment_is_confirmed_as_well(tmp_path: Path, make_serving: MakeServing) -> None:
    pair: dict[str, Any] = {"certificate": tmp_path / "certificate.pem", "key": tmp_path / "key.pem"}
    made = ["openssl", *SELF_SIGNED, "-keyout", str(pair["key"]), "-out", str(pair["certificate"])]
    subprocess.run(made, check=True, capture_output=True)
    folder = tmp_path / "home" / "gateway"
    gateway = EnvoyGateway(settings=GatewaySettings(folder=folder, port=free_port(), **pair))
    gateway.start()
    gateway.wait_ready()
    server = LiveServer(serving=make_serving("v1"), fingerprint="", server="d1", weight=100, since=0)
    try:
        told = Live(deployment=Deployment(servers=(server,)), api_key="key")
        Publication(home=folder.parent, applied_s=10).publish(told)
    finally:
        gateway.stop()


def test_ten_thousand_deployments_load_and_one_more_is_live_within_seconds(
    serving: LocalServing, gateway: EnvoyGateway, make_serving: MakeServing, door: httpx.Client
) -> None:
    gateway.stop()
    publication = Publication(home=Path(serving.home))
    _pretend_many(publication)
    started = time.monotonic()
    gateway.start()
    gateway.wait_ready()
    assert time.monotonic() - started < 30
    serving.deploy(make_serving("v1"), quiet)
    known = live(serving)
    publication.withdraw(TENANT, MODEL)
    assert ask(door).status_code == 503
    started = time.monotonic()
    publication.publish(known)
    assert answered_by(ask(door)) == "v1"
    assert time.monotonic() - started < 5
    assert len(ClusterFile(gateway.settings.clusters).all()) == MANY + 1


MANY = 10_000


def _pretend_many(publication: Publication) -> None:
    """Tenants with a deployment each, as the journals and the endpoints of so many would be."""
    names = [f"tenant-{number}" for number in range(MANY)]
    pretended = [Endpoint(deployment=name, tenant=name, model=MODEL, socket=f"{name}.sock") for name in names]
    ClusterFile(publication.folder / "xds" / "clusters.json").change(lambda _before: pretended)
    backend = {"version": "v", "digest": "sha256:v", "weight": 100, "names": ["production"]}
    publication.routes.append(
        *(
            {"tenant": name, "model": MODEL, "key": "k", "backends": [{**backend, "deployment": name}]}
            for name in names
        )
    )
    Journal(publication.folder / "tenants.jsonl").append(*(tenant_line(name) for name in names))
