"""Servers that are gone, do not answer, or go while they are asked: what others and clients notice of it."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from resources.gateway.envoy import EnvoyGateway
from tests.integration.door.conftest import MakeGateway, serve
from tests.servers.echo import Echo, echoing, short_folder


@contextmanager
def silent() -> Iterator[Path]:
    """The socket of a server that takes no connection any more: its queue is full."""
    with short_folder() as folder, socket.socket(socket.AF_UNIX) as listening:
        path = folder / "silent.sock"
        listening.bind(str(path))
        listening.listen(0)
        with socket.socket(socket.AF_UNIX) as waiting:
            waiting.connect(str(path))
            yield path


def test_a_request_goes_to_another_replica_where_one_is_gone(make_gateway: MakeGateway, echo: Echo) -> None:
    gateway = make_gateway()
    serve(gateway, ("d1", Path("/nowhere.sock")), ("d1", echo.path))
    assert statuses(gateway, "d1", 30) == [200] * 30


def test_a_replica_that_hangs_holds_up_few_requests_and_then_none(
    make_gateway: MakeGateway, echo: Echo
) -> None:
    gateway = make_gateway()
    with silent() as path:
        serve(gateway, ("d1", path), ("d1", echo.path))
        assert statuses(gateway, "d1", 30) == [200] * 30
        started = time.monotonic()
        assert statuses(gateway, "d1", 30) == [200] * 30
        assert time.monotonic() - started < 5, "30 waits of a second would be longer"
        ejected = gateway.admin.read("/stats?filter=outlier_detection.ejections_enforced_total")
        assert ": 1" in ejected, "it was taken out after a few attempts"


def test_a_deployment_that_hangs_is_refused_in_time_and_the_others_do_not_notice(
    make_gateway: MakeGateway, echo: Echo
) -> None:
    gateway = make_gateway()
    with silent() as path:
        serve(gateway, ("hung", path), ("d1", echo.path))
        asking = threading.Thread(target=statuses, args=(gateway, "hung", 3))
        asking.start()
        started = time.monotonic()
        assert statuses(gateway, "d1", 50) == [200] * 50
        assert time.monotonic() - started < 5
        asking.join()
        answer = ask(gateway, "hung")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_not_live")
        assert answer.headers["retry-after"]


def test_what_a_server_fails_at_takes_it_away_from_nobody(gateway: EnvoyGateway, echo: Echo) -> None:
    assert {ask(gateway, "d1", "/status/500").status_code for _ in range(20)} == {500}
    assert statuses(gateway, "d1", 5) == [200] * 5


@pytest.mark.parametrize("status", [500, 502])
def test_a_request_that_a_server_has_begun_is_never_sent_twice(
    gateway: EnvoyGateway, echo: Echo, status: int
) -> None:
    before = len(echo.asked)
    ask(gateway, "d1", f"/status/{status}")
    assert len(echo.asked) == before + 1


def test_a_server_that_drains_is_asked_again_and_another_answers(make_gateway: MakeGateway) -> None:
    gateway = make_gateway()
    with echoing("one") as one, echoing("two") as two:
        serve(gateway, ("d1", one.path), ("d1", two.path))
        ask(gateway, "d1", "/status/503")
        assert (len(one.asked), len(two.asked)) >= (1, 1)


def test_an_answer_that_does_not_come_is_a_504_in_openais_shape(gateway: EnvoyGateway) -> None:
    answer = ask(gateway, "d1", "/slow/3")
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")


def test_ten_deployments_come_and_go_without_an_error(make_gateway: MakeGateway, echo: Echo) -> None:
    gateway = make_gateway()
    serve(gateway, ("d1", echo.path))
    over = threading.Event()
    seen: list[int] = []

    def ask_on() -> None:
        while not over.is_set():
            seen.extend(statuses(gateway, "d1", 5))

    asking = threading.Thread(target=ask_on)
    asking.start()
    for number in range(20):
        others = ((f"other-{number}-{each}", Path(f"/nowhere-{each}.sock")) for each in range(10))
        serve(gateway, ("d1", echo.path), *others)
    over.set()
    asking.join()
    assert set(seen) == {200}


def ask(gateway: EnvoyGateway, deployment: str, path: str = "/v1/x") -> httpx.Response:
    headers = {"x-deployment": deployment}
    return httpx.get(f"{gateway.url}{path}", headers=headers, trust_env=False, timeout=20)


def statuses(gateway: EnvoyGateway, deployment: str, count: int) -> list[int]:
    return [ask(gateway, deployment).status_code for _ in range(count)]
