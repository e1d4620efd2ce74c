"""The real gateway (Envoy, our filter, stand-ins for vLLM) is killed under load; and its collector."""

import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from resources.audit.places import AuditPlaces
from resources.audit.segments import lines_in, record_in, segments_in
from resources.audit.statements import Signing
from resources.audit.verifying import verify_tenant
from tests.integration.audit.test_killed import READY_S, collector
from tests.integration.gateway.conftest import prepared
from tests.integration.gateway.gateways import (
    DIGESTS,
    Gateway,
    bootstrap,
    envoy_of,
    question,
    script,
    stand_in,
)
from tests.servers.ports import free_port

CLIENTS, COLLECTOR_KILLED_AT, GATEWAY_KILLED_AT = 8, 150, 500  # answers


class Client(threading.Thread):
    """Asks again and again, until the gateway is gone; the ids of the answers that came whole."""

    def __init__(self, port: int, key: str, model: str) -> None:
        super().__init__()
        self.answered: list[str] = []
        self._port, self._key, self._model = port, key, model

    def run(self) -> None:
        headers = {"authorization": f"Bearer {self._key}"}
        body = question(model=self._model, user="jan.kowalski@example.com")
        with httpx.Client(base_url=f"http://127.0.0.1:{self._port}", headers=headers, timeout=10) as client:
            while True:
                try:
                    answer = client.post("/t/team-a/v1/chat/completions", json=body)
                except httpx.TransportError:
                    return
                assert answer.status_code == 200, answer.text
                self.answered.append(answer.headers["x-request-id"])


def wait_for_answers(clients: list[Client], count: int) -> None:
    deadline = time.monotonic() + READY_S
    while sum(len(client.answered) for client in clients) < count:
        assert time.monotonic() < deadline, "the gateway hardly answers"
        time.sleep(0.01)


def sealed(home: Path) -> list[dict]:
    folder = AuditPlaces(folder=home / "audit").log("team-a")
    records = [record_in(line) for segment in segments_in(folder) for line in lines_in(segment.path)]
    return [record for record in records if record["kind"] == "request"]


@pytest.mark.parametrize("model", ["support_bot", "screening"])
def test_every_answer_of_a_gateway_that_is_killed_under_load_has_its_record(
    tmp_path_factory: pytest.TempPathFactory, model: str
) -> None:
    home = prepared(tmp_path_factory.mktemp("h"))
    with ExitStack() as stack:
        backends = {name: stack.enter_context(stand_in(home, name)) for name in DIGESTS}
        port = free_port()
        configuration = bootstrap(port, script(home), backends, home, admin="gateway/admin.sock")
        process = stack.enter_context(envoy_of(home, configuration, port))
        gateway = stack.enter_context(Gateway(home, port, backends))
        clients = [Client(port, gateway.key(), model) for _ in range(CLIENTS)]
        collecting = collector(home)
        for client in clients:
            client.start()
        wait_for_answers(clients, COLLECTOR_KILLED_AT)
        collecting.kill()
        collecting.wait()
        wait_for_answers(clients, GATEWAY_KILLED_AT)
        process.kill()
        for client in clients:
            client.join()
    answered = {id for client in clients for id in client.answered}
    assert len(answered) >= GATEWAY_KILLED_AT
    collecting = collector(home)
    spool, deadline = home / "gateway" / "spool", time.monotonic() + READY_S
    while any(path.read_bytes().strip() for path in spool.iterdir()):
        assert time.monotonic() < deadline, (home / "collector.log").read_text()
        time.sleep(0.2)
    collecting.terminate()
    assert collecting.wait(timeout=READY_S) == 0
    times = Counter(record["id"] for record in sealed(home))
    assert answered <= times.keys(), "an answer without a record"
    assert set(times.values()) == {1}, "a record twice"
    outcomes = Counter(record["outcome"] for record in sealed(home))
    print(f"{len(answered)} answers, records: {dict(outcomes)}")
    assert outcomes["ok"] >= len(answered)
    signing = Signing(home / "keys")
    assert verify_tenant(AuditPlaces(folder=home / "audit"), "team-a", signing).faults == ()
    content = b"".join(path.read_bytes() for path in [*spool.iterdir(), *(home / "audit").rglob("*.jsonl")])
    assert b"jan.kowalski" not in content
    assert b"Where is my invoice?" not in content
