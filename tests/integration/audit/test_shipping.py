"""Loki's push API (a stand-in that keeps what it is sent), Google's lines, and events of keys."""

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from resources.audit.cloud_logging import CloudLogging
from resources.audit.journal_events import JournalEvents, key_facts, route_facts
from resources.audit.loki import Loki
from resources.audit.places import AuditError
from resources.audit.shipping import Shipper, ShippingError
from tests.unit.audit.conftest import Log


class LokiStandIn(HTTPServer):
    """Takes pushes; `refuse` of them are answered 503 first."""

    def __init__(self, refuse: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.refuse = refuse
        self.pushed: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def ids(self) -> list[str]:
        streams = [stream for push in self.pushed for stream in push["streams"]]
        return [json.loads(line)["id"] for stream in streams for _, line in stream["values"]]


class _Handler(BaseHTTPRequestHandler):
    server: LokiStandIn

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        refused = self.path != "/loki/api/v1/push" or self.server.refuse > 0
        self.server.refuse -= 1
        if not refused:
            self.server.pushed.append(json.loads(body))
        self.send_response(503 if refused else 204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Silent."""


@contextmanager
def loki(refuse: int = 0) -> Iterator[LokiStandIn]:
    with LokiStandIn(refuse) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_every_record_reaches_loki_once_it_takes_them_without_any_personal_part(log: Log) -> None:
    ids = log.fill(5)
    with loki(refuse=1) as server:
        sender = Loki(server.url)
        with pytest.raises(ShippingError, match="HTTP 503"):
            Shipper(log.places, "loki", sender.send).ship()
        assert Shipper(log.places, "loki", sender.send).ship() == 5
        ids += log.fill(2)
        assert Shipper(log.places, "loki", sender.send).ship() == 2
        assert Shipper(log.places, "loki", sender.send).ship() == 0
        sender.close()
        assert server.ids() == ids
        stream = server.pushed[0]["streams"][0]["stream"]
        assert stream == {
            "job": "llm-assets-audit",
            "tenant": "team-a",
            "model": "support_bot",
            "outcome": "ok",
        }
        assert "personal" not in json.dumps(server.pushed)


def test_a_loki_that_is_not_there_is_told_with_the_setting(log: Log) -> None:
    log.fill(1)
    sender = Loki("http://127.0.0.1:9")
    with pytest.raises(ShippingError, match="check LLM_ASSETS_LOKI_URL"):
        Shipper(log.places, "loki", sender.send).ship()
    sender.close()


def test_google_cloud_logging_gets_one_json_object_a_line(log: Log) -> None:
    (id,) = log.fill(1)
    out = io.StringIO()
    Shipper(log.places, "cloud-logging", CloudLogging(out).send).ship()
    (entry,) = [json.loads(line) for line in out.getvalue().splitlines()]
    assert (entry["severity"], entry["audit"]["id"]) == ("INFO", id)
    assert entry["logging.googleapis.com/insertId"] == "team-a-1"
    assert entry["logging.googleapis.com/labels"]["model"] == "support_bot"
    assert entry["httpRequest"]["status"] == 200


def test_keys_that_are_made_and_revoked_are_events_of_their_tenant_once(log: Log) -> None:
    journal = log.home / "gateway" / "keys.jsonl"
    made: dict[str, Any] = {
        "event": "created",
        "id": "k3fz",
        "hash": "ab" * 32,
        "tenant": "team-a",
        "name": "ci",
    }
    made |= {"actor": "ada@example.com", "models": None, "created": 1763.5, "by": "root"}
    journal.write_text(json.dumps(made) + "\n")
    events = JournalEvents(journal, log.sealer, key_facts)
    assert events.follow() == 1
    with journal.open("a") as stream:
        stream.write(json.dumps({"event": "revoked", "id": "k3fz", "at": 1764.5, "by": "root"}) + '\n{"torn')
    assert events.follow() == 1
    assert JournalEvents(journal, log.sealer, key_facts).follow() == 0, "after a restart"
    created, revoked = log.records()
    assert (created["event"], created["key"], created["by"]) == ("key_created", "k3fz", "root")
    assert revoked["event"] == "key_revoked"
    text = json.dumps(log.records())
    assert "ada@example.com" not in text
    assert made["hash"] not in text


def test_a_promotion_and_its_rollback_to_the_same_route_are_two_events(log: Log) -> None:
    journal = log.home / "gateway" / "routes.jsonl"
    backends = [
        {"deployment": "d1", "version": "v1", "digest": "sha256:1", "weight": 100, "names": ["production"]}
    ]
    first = {"tenant": "team-a", "model": "support_bot", "key": "the engine's own", "backends": backends}
    second = first | {"backends": [backends[0] | {"version": "v2", "deployment": "d2"}]}
    journal.write_text("".join(json.dumps(line) + "\n" for line in (first, second, first)))
    assert JournalEvents(journal, log.sealer, route_facts).follow() == 3
    assert [record["backends"][0]["version"] for record in log.records()] == ["v1", "v2", "v1"]
    assert "the engine's own" not in json.dumps(log.records())


def test_an_event_that_cannot_be_sealed_now_is_sealed_later(log: Log) -> None:
    journal = log.home / "gateway" / "keys.jsonl"
    journal.write_text(
        json.dumps({"event": "created", "id": "k3fz", "tenant": "team-a", "by": "root"}) + "\n"
    )
    events, folder = JournalEvents(journal, log.sealer, key_facts), log.places.log("team-a")
    folder.parent.mkdir(parents=True)
    folder.write_bytes(b"")  # no folder can be made there
    with pytest.raises((AuditError, OSError)):
        events.follow()
    folder.unlink()
    assert events.follow() == 1
    assert [record["event"] for record in log.records()] == ["key_created"]
