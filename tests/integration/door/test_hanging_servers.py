"""Servers that hang: real Envoy, the real filter, stand-ins for vLLM that are stopped or whose engine is."""

import os
import signal
import threading
import time
from contextlib import closing
from dataclasses import replace

import httpx
import pytest

from resources.gateway.envoy import EnvoyGateway
from resources.local.serving.local_serving import LocalServing
from resources.local.serving.watching import ServerWatch, Unresponsive
from resources.waiting import wait_until
from tests.integration.door.test_publishing import answered_by, ask, deploy, door, gateway, serving, told
from tests.integration.serving.conftest import MODEL, TENANT, MakeServing, make_serving, server_of, store
from tests.integration.serving.conftest import ask as ask_the_server

__all__ = ["door", "gateway", "make_serving", "serving", "store"]

UNWELL_S, STALLED_S, QUESTION_S = 0.3, 0.3, 0.5


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resources.vllm.client.HEALTH_TIMEOUT_S", 0.5)


def watch_of(serving: LocalServing) -> closing[ServerWatch]:
    watch = ServerWatch(
        servers=serving.servers, unwell_s=UNWELL_S, stalled_s=STALLED_S, question_s=QUESTION_S
    )
    return closing(watch)


def given_up(serving: LocalServing, watch: ServerWatch, looks: int) -> list[Unresponsive]:
    """What so many looks find, a short time apart."""
    found = []
    for _ in range(looks):
        found += list(watch.look(serving.running()))
        time.sleep(0.15)
    return found


def give_up(serving: LocalServing, found: Unresponsive) -> None:
    """As the gateway's keeper does it."""
    serving.servers.give_up(found.server, found.why)
    told(serving).publish(serving.route(TENANT, MODEL))


def names(door: httpx.Client) -> set[str]:
    return {each["id"] for each in door.get("/models").json()["data"]}


@pytest.mark.usefixtures("impatient")
def test_a_stopped_server_is_named_and_killed_its_requests_end_and_it_comes_back(
    serving: LocalServing, gateway: EnvoyGateway, door: httpx.Client, make_serving: MakeServing
) -> None:
    deploy(serving, make_serving("v1"))
    server = server_of(serving, "v1")
    os.kill(server.pid, signal.SIGSTOP)
    waiting: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: waiting.append(ask(door)))
    asking.start()
    assert serving.state(TENANT, MODEL).status == "dead"
    assert "runs but does not answer" in str(serving.state(TENANT, MODEL).why)
    with watch_of(serving) as watch:
        [found] = wait_until(lambda: given_up(serving, watch, 1) or None, what="the hang", timeout_s=20)
        assert found.why.startswith("it had not answered /health for ")
        give_up(serving, found)
    asking.join(timeout=10)
    assert (waiting[0].status_code, waiting[0].json()["error"]["code"]) == (503, "model_not_live")
    started = time.monotonic()
    refused = ask(door)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_not_live")
    assert time.monotonic() - started < 1
    assert names(door) == set()
    why = str(serving.state(TENANT, MODEL).why)
    assert f"(pid {server.pid}) died: it was killed by SIGKILL (signal 9): it had not answered /health" in why
    deploy(serving, make_serving("v1"))
    assert answered_by(ask(door)) == "v1"
    assert f"{MODEL}@v1" in names(door)


@pytest.mark.usefixtures("impatient")
def test_where_one_version_hangs_the_other_has_its_requests_and_not_its_name(
    serving: LocalServing, door: httpx.Client, make_serving: MakeServing
) -> None:
    wanted = tuple(replace(make_serving(version), weight=50) for version in ("v1", "v2"))
    deploy(serving, wanted)
    os.kill(server_of(serving, "v1").pid, signal.SIGSTOP)
    with watch_of(serving) as watch:
        [found] = wait_until(lambda: given_up(serving, watch, 1) or None, what="the hang", timeout_s=20)
    give_up(serving, found)
    assert {answered_by(ask(door, user=str(number))) for number in range(30)} == {"v2"}
    for name in ("production", "v1"):
        answer = ask(door, model=f"{MODEL}@{name}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_not_live")
    assert ask(door, model=f"{MODEL}@nothing").status_code == 404
    assert names(door) == {MODEL, f"{MODEL}@v2"}
    told(serving).publish_all(serving.routes())
    assert ask(door, model=f"{MODEL}@production").status_code == 503


def test_a_server_whose_engine_says_nothing_is_given_up_and_one_that_is_only_slow_is_not(
    serving: LocalServing, door: httpx.Client, make_serving: MakeServing
) -> None:
    deploy(serving, make_serving("v1", behaviour={"token_s": 2}))
    deploy(serving, make_serving("v2", tenant="team-b", behaviour={"stalls": True}))
    [stalled] = serving.servers.of("team-b", MODEL)
    with (
        serving.servers.client(stalled) as unanswered,
        door.stream(
            "POST", "/chat/completions", json={"model": MODEL, "messages": [], "stream": True}
        ) as slow,
        watch_of(serving) as watch,
    ):
        assert slow.status_code == 200  # asked, and its counters do not move
        assert given_up(serving, watch, 3) == [], "nobody asks the other one"
        asking = threading.Thread(target=lambda: unanswered.answers(MODEL, timeout_s=20))
        asking.start()
        [found] = wait_until(lambda: given_up(serving, watch, 1) or None, what="the stall", timeout_s=20)
        assert found.server == stalled
        assert found.why.startswith("it was asked and had answered nothing for ")
        give_up(serving, found)
        asking.join()
        assert given_up(serving, watch, 3) == []


@pytest.mark.usefixtures("impatient")
def test_one_look_that_failed_gives_no_server_up(serving: LocalServing, make_serving: MakeServing) -> None:
    deploy(serving, make_serving("v1"))
    server = server_of(serving, "v1")
    with watch_of(serving) as watch:
        for _ in range(3):
            os.kill(server.pid, signal.SIGSTOP)
            assert given_up(serving, watch, 1) == []
            os.kill(server.pid, signal.SIGCONT)
            assert given_up(serving, watch, 1) == []
    assert ask_the_server(serving) == "v1"
