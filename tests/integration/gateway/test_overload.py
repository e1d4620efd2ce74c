"""Who asks for more than there is room for: others do not notice, and every refusal is on the record."""

import contextlib
import json
import select
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from resources.gateway.api_keys import create_key
from resources.gateway.envoy import running_gateway
from resources.gateway.envoy_settings import MIB
from resources.gateway.limits import Limits
from resources.waiting import wait_until
from tests.integration.gateway.gateways import error_of, new_key, question
from tests.integration.gateway.gateways import tenant as tenant_line
from tests.integration.gateway.whole_gateways import Deployment, WholeGateway, whole_gateway

MODELS = {"support_bot": "limited", "screening": "high"}
TENANTS = ("team-a", "team-b")
LIVE = [Deployment(tenant=name, model=model) for name in TENANTS for model in MODELS]
BODY_BYTES = 8 * MIB


class Crowd:
    """A gateway with two tenants, and clients that never finish what they send."""

    def __init__(self, gateway: WholeGateway) -> None:
        self.gateway = gateway
        self.client = self.new_client()
        gateway.tenants.append(*(tenant_line(name, MODELS) for name in TENANTS))

    def new_client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.gateway.port}", timeout=20)

    def key(self, tenant: str = "team-a", **limits: int) -> str:
        return create_key(
            self.gateway.keys, tenant=tenant, name="ci", actor="ci", by="tests", limits=Limits(**limits)
        )[1]

    def ask(self, key: str | None, tenant: str = "team-a", path: str = "", **body: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return self.client.post(
            path or f"/t/{tenant}/v1/chat/completions", json=question(**body), headers=headers
        )

    @contextmanager
    def unfinished(
        self, keys: list[str], count: int, *, tenant: str = "team-a", length: bool = True
    ) -> Iterator[None]:
        """Clients that take turns with the keys and send all of a body but its last piece."""
        size = f"content-length: {BODY_BYTES}" if length else "transfer-encoding: chunked"
        piece = b"x" * (64 * 1024)
        sent = piece if length else b"%x\r\n%s\r\n" % (len(piece), piece)
        with contextlib.ExitStack() as stack:
            for at in range(count):
                lines = [f"POST /t/{tenant}/v1/chat/completions HTTP/1.1", "host: a", size]
                lines += [f"authorization: Bearer {keys[at % len(keys)]}", "", ""]
                client = stack.enter_context(socket.create_connection(("127.0.0.1", self.gateway.port)))
                client.sendall("\r\n".join(lines).encode())
                refused, _, _ = select.select([client], [], [], 0.02)
                with contextlib.suppress(ConnectionError):  # refused meanwhile, and closed in our face
                    if refused:
                        continue
                    for _ in range(BODY_BYTES // len(piece) - 1):
                        client.sendall(sent)
            yield

    def records(self) -> list[dict[str, Any]]:
        """What is in the spool, once the gateway has written down what it counted."""
        for _ in range(2):
            self.client.get("/healthz")
            time.sleep(1.1)
        self.client.get("/healthz")
        files = sorted((self.gateway.folder / "spool").glob("*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def refused(self, key: str) -> Counter[str]:
        """The reasons for which a key's requests were refused, as the record has them."""
        key_id = key.split("_")[1]
        found: Counter[str] = Counter()
        for each in self.records():
            if each["e"] == "denied" and each["key"] == key_id:
                found[each["reason"]] += each.get("count", 1)
        return found

    def memory_bytes(self) -> int:
        running = running_gateway(self.gateway.folder.parent)
        assert running
        return psutil.Process(running.pid).memory_info().rss


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    home = tmp_path_factory.mktemp("crowd")
    with whole_gateway(home, LIVE, refusals_recorded=20, strangers_a_minute=400) as gateway:
        crowd = Crowd(gateway)
        yield crowd
        crowd.client.close()


@pytest.mark.parametrize("length", [True, False], ids=["with a length", "in chunks"])
def test_240_unfinished_bodies_of_a_key_with_one_request_at_once_stop_nobody_else(
    crowd: Crowd, length: bool
) -> None:
    key, other, neighbour = crowd.key(concurrent_requests=1), crowd.key(), crowd.key("team-b")
    with crowd.unfinished([key], 240, length=length):
        assert crowd.ask(other).status_code == 200
        assert crowd.ask(neighbour, "team-b").status_code == 200
        assert error_of(crowd.ask(key)) == (429, "rate_limit_exceeded")
    wait_until(lambda: crowd.ask(key).status_code == 200, what="the place of who left", timeout_s=5)
    refused = crowd.refused(key)
    assert refused["client_left"] == 1, "who left before the end is on the record too"
    assert refused["concurrent_requests"] >= 240


def test_a_key_and_a_tenant_hold_their_share_of_the_room_for_bodies_and_no_more(crowd: Crowd) -> None:
    room = crowd.gateway.envoy.settings.held_bytes // BODY_BYTES
    one, others, neighbour = crowd.key(), [crowd.key() for _ in range(4)], crowd.key("team-b")
    before = crowd.memory_bytes()
    with crowd.unfinished([one], room // 8 + 10):
        answer = crowd.ask(one)
        assert error_of(answer) == (429, "rate_limit_exceeded")
        assert "are too large together. Try again in 1 s." in answer.json()["error"]["message"]
        assert crowd.ask(others[0]).status_code == 200
        with crowd.unfinished(others, room // 4):
            assert crowd.ask(others[0]).status_code == 429
            assert crowd.ask(neighbour, "team-b").status_code == 200
            held = crowd.memory_bytes() - before
            assert held < crowd.gateway.envoy.settings.held_bytes / 2
    wait_until(lambda: crowd.ask(one).status_code == 200, what="the room of who left", timeout_s=5)
    assert crowd.refused(one)["bytes_at_once"] >= 10


def _send(port: int, requests: list[bytes]) -> list[int]:
    """The statuses of requests on one connection, sent one after another."""
    statuses = []
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        for request in requests:
            client.sendall(request)
            with HTTPResponse(client) as answer:
                answer.begin()
                answer.read()
                statuses.append(answer.status)
    return statuses


STRANGERS = {
    "no key": ("GET /t/team-a/v1/models", ""),
    "a wrong key": ("GET /t/team-a/v1/models", f"authorization: Bearer {new_key()}\r\n"),
    "another tenant": ("GET /t/nobody/v1/models", f"authorization: Bearer {new_key()}\r\n"),
    "no address": ("GET /nothing", ""),
    "no endpoint": ("GET /t/team-a/v1/files", ""),
    "a wrong method": ("DELETE /t/team-a/v1/models", ""),
    "no token": ("GET /t/team-a/v1/models", "authorization: Bearer eyJ9.e30.e30\r\n"),
}


def test_requests_without_a_key_cost_a_count_and_not_a_record_each(tmp_path: Path) -> None:
    count = 100
    with whole_gateway(tmp_path, LIVE, refusals_recorded=20, strangers_a_minute=400) as gateway:
        crowd = Crowd(gateway)
        key, long = crowd.key(), "x" * 20_000
        asked = {
            case: f"{line}?{long} HTTP/1.1\r\nhost: a\r\nx-long: {long[:9000]}\r\n{header}\r\n".encode()
            for case, (line, header) in STRANGERS.items()
        }
        statuses = [status for each in asked.values() for status in _send(gateway.port, [each] * count)]
        assert crowd.ask(key).status_code == 200, "who has a key does not notice"
        refused = [each for each in crowd.records() if each["e"] == "denied"]
        spool_bytes = sum(file.stat().st_size for file in (gateway.folder / "spool").iterdir())
        crowd.client.close()
    assert sum(each.get("count", 1) for each in refused) == len(statuses) == len(STRANGERS) * count
    assert statuses.count(429) == len(statuses) - 400
    assert len([each for each in refused if "count" not in each]) == 20
    assert len(refused) < 60
    assert spool_bytes < 60_000
    assert {each["remote"] for each in refused} == {"127.0.0.1"}


def test_a_key_cannot_fill_the_disk_by_being_refused(crowd: Crowd) -> None:
    """Whatever it is refused for: its requests are counted, and none is lost from the count."""
    count = 100
    key, limited = crowd.key(), crowd.key(requests_per_minute=1)
    head = "POST /t/team-a/v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer "
    for each, body in ((key, b"{"), (key, b'{"model":"' + b"x" * 9000 + b'"}'), (limited, b'{"model":"x"}')):
        request = f"{head}{each}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
        for _ in range(count):
            _send(crowd.gateway.port, [request])
    refused = crowd.refused(key)
    assert refused == {"bad_request": count, "model": count}
    assert crowd.refused(limited) == {"model": 60, "requests_per_minute": count - 60}
    lines = [
        each for each in crowd.records() if each.get("key") in (key.split("_")[1], limited.split("_")[1])
    ]
    assert len(lines) < 60
    assert len(json.dumps(lines)) < 40_000


def test_who_leaves_before_the_end_of_a_body_is_counted_as_well(crowd: Crowd) -> None:
    key, count = crowd.key(), 60
    head = f"POST /t/team-a/v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\n"
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", crowd.gateway.port)) as client:
            client.sendall(f"{head}content-length: 9\r\n\r\n{{".encode())
            select.select([client], [], [], 0.005)
    assert crowd.refused(key) == {"client_left": count}
    lines = [each for each in crowd.records() if each.get("key") == key.split("_")[1]]
    assert len(lines) < 30


def test_lists_of_models_have_the_limit_of_requests_and_take_nothing_of_it(crowd: Crowd) -> None:
    key = crowd.key(requests_per_minute=70)
    headers = {"authorization": f"Bearer {key}"}
    statuses = [crowd.client.get("/t/team-a/v1/models", headers=headers).status_code for _ in range(75)]
    assert statuses == [200] * 70 + [429] * 5
    other = crowd.key(requests_per_minute=1)
    headers = {"authorization": f"Bearer {other}"}
    for _ in range(3):
        assert crowd.client.get("/t/team-a/v1/models/support_bot", headers=headers).status_code == 200
    assert [crowd.ask(other).status_code for _ in range(2)] == [200, 429]


def test_what_envoy_refuses_for_want_of_memory_has_its_own_error_and_its_own_record(tmp_path: Path) -> None:
    with whole_gateway(tmp_path, LIVE, max_heap_bytes=96 * MIB) as gateway, contextlib.ExitStack() as stack:
        crowd = Crowd(gateway)
        stack.callback(crowd.client.close)
        key = crowd.key()
        body = json.dumps(question(stand_in={"words": 1_500_000})).encode()
        lines = ["POST /t/team-a/v1/chat/completions HTTP/1.1", "host: a", f"authorization: Bearer {key}"]
        request = "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body
        answer = crowd.ask(key)
        with contextlib.ExitStack() as clients:
            for _ in range(40):  # who ask for a long answer and take nothing of it
                client = clients.enter_context(socket.socket())
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.connect(("127.0.0.1", gateway.port))
                client.sendall(request)
                answer = crowd.ask(key)
                if answer.status_code != 200:
                    break
        assert error_of(answer) == (503, "overloaded")
        assert int(answer.headers["retry-after"]) > 0
        wait_until(lambda: crowd.ask(key).status_code == 200, what="memory", timeout_s=20)
        (refused,) = [each for each in crowd.records() if each["id"] == answer.headers["x-request-id"]]
    assert (refused["e"], refused["status"], refused["reason"]) == ("denied", 503, "overloaded")
    assert refused["remote"] == "127.0.0.1"


M = BODY_BYTES - 200
DEAR: dict[str, bytes] = {
    "quotes": b'"messages":[{"role":"user","content":"' + b'\\"' * (M // 2) + b'"}]',
    "backslashes": b'"messages":[{"role":"user","content":"' + b"\\\\" * (M // 2) + b'"}]',
    "escapes": b'"messages":[{"role":"user","content":"' + b"\\u0001" * (M // 6) + b'"}]',
    "surrogates": b'"messages":[{"role":"user","content":"' + b"\\ud83d\\ude00" * (M // 12) + b'"}]',
    "letters of two bytes": b'"messages":[{"role":"user","content":"' + "ł".encode() * (M // 2) + b'"}]',
    "a user": b'"user":"' + b'\\"' * (M // 2) + b'"',
    "a stop": b'"stop":"' + b'\\"' * (M // 2) + b'"',
    "members": b'"a":1,' * (M // 6) + b'"a":1',
    "members with escapes": b'"a":1,' + b'"\\u0061":1,' * (M // 11) + b'"a":1',
    "prompts": b'"prompt":[' + b'"",' * (M // 3) + b'""]',
    "objects": b'"a":[' + b"{}," * (M // 3) + b"{}]",
    "nests": b'"a":[' + (b"[" * 90 + b"]" * 90 + b",") * (M // 181) + b"1]",
}


def _worker_s(crowd: Crowd, key: str, content: bytes) -> float:
    """Seconds of Envoy's processor for a body, at best of three."""
    running = running_gateway(crowd.gateway.folder.parent)
    assert running
    process, taken = psutil.Process(running.pid), []
    for _ in range(3):
        before = process.cpu_times()
        answer = crowd.client.post(
            "/t/team-a/v1/chat/completions", content=content, headers={"authorization": f"Bearer {key}"}
        )
        assert answer.status_code in (200, 400, 404), answer.text
        after = process.cpu_times()
        taken.append(after.user + after.system - before.user - before.system)
    return min(taken)


@pytest.fixture(scope="module")
def plain_s(crowd: Crowd) -> float:
    text = b'{"model":"screening","messages":[{"role":"user","content":"' + b"x" * M + b'"}]}'
    return _worker_s(crowd, crowd.key(), text)


@pytest.mark.parametrize("case", DEAR)
def test_no_body_costs_the_worker_many_times_what_a_plain_one_of_its_length_does(
    crowd: Crowd, plain_s: float, case: str
) -> None:
    known = not DEAR[case].startswith(
        (b'"a"', b'"prompt"')
    )  # the stand-in would take half a minute to read it
    model = b'"screening"' if known else b'"nothing"'
    dear_s = _worker_s(crowd, crowd.key(), b'{"model":' + model + b"," + DEAR[case] + b"}")
    assert dear_s < 0.1 + 5 * plain_s, f"{dear_s:.2f} s, and a plain body of its length {plain_s:.2f} s"


def test_who_takes_nothing_of_an_answer_is_disconnected_and_the_answer_let_go(tmp_path: Path) -> None:
    with whole_gateway(tmp_path, LIVE, unread_s=1) as gateway:
        crowd = Crowd(gateway)
        body = json.dumps(question(stand_in={"words": 1_500_000})).encode()
        lines = [
            "POST /t/team-a/v1/chat/completions HTTP/1.1",
            "host: a",
            f"authorization: Bearer {crowd.key()}",
        ]
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", gateway.port))
            client.sendall("\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body)
            select.select([client], [], [], 20)
            wait_until(lambda: _connections(gateway) == 0, what="the end of the connection", timeout_s=30)
        crowd.client.close()


def _connections(gateway: WholeGateway) -> int:
    said = gateway.envoy.admin.read("/stats?filter=^http.door.downstream_cx_active$")
    return int(said.strip().rpartition(" ")[2])
