"""The record holds what was sent, however the answer ended; and every request has one."""

import contextlib
import hashlib
import json
import socket
import time
from typing import Any

import httpx
import pytest

from tests.integration.gateway.gateways import BODY_LIMIT_BYTES, Gateway, error_of
from tests.servers.openai_stand_in import WORDS

HIGH = "screening"
ENDPOINTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "?"}]},
    "/v1/completions": {"prompt": "?"},
    "/v1/responses": {"input": "?"},
}


def read_some(gateway: Gateway, path: str, body: dict[str, Any], events: int, *, cut: bool) -> bytes:
    """A stream's bytes as far as they were read: so many whole events and, with `cut`, a bit of the next."""
    key = gateway.key()
    headers = {"authorization": f"Bearer {key}"}
    arrived = b""
    url = f"http://127.0.0.1:{gateway.port}/t/team-a{path}"
    with httpx.stream("POST", url, json=body, headers=headers) as answer:
        for piece in answer.iter_raw():
            arrived += piece
            if arrived.count(b"\n\n") >= events + cut:
                break
    return arrived


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize("events", [1, 3, 5])
@pytest.mark.parametrize("cut", [False, True])
def test_who_leaves_a_stream_of_a_high_risk_model_leaves_its_text_on_the_record(
    gateway: Gateway, path: str, events: int, cut: bool
) -> None:
    how = {"pause_s": 0.03, "words": 60, "cut": 7 if cut else None}
    body = {"model": HIGH, "stream": True, "stand_in": how, **ENDPOINTS[path]}
    before = {each["id"] for each in gateway.records("request")}
    arrived = read_some(gateway, path, body, events, cut=cut)
    time.sleep(0.1)
    gateway.client.get("/healthz")
    [mine] = [each for each in gateway.records("request") if each["id"] not in before]
    record = gateway.record("aborted", mine["id"])
    texts = [word for word in WORDS * 9 if word]
    told = 2 if path == "/v1/responses" else 0  # events that say that it begins
    assert bool(record["output"]) is (events > told), "what was read is on the record"
    assert "".join(texts).startswith(record["output"])
    said = sum(arrived.count(json.dumps(word).encode()) for word in set(WORDS))
    assert len(record["output"]) >= len("".join(texts[: max(said - 1, 0)]))
    assert record["output_bytes"] >= len(arrived)
    assert len(record["output_sha256"]) == 64


def test_an_ordinary_model_s_text_is_not_kept_of_an_answer_that_was_left(gateway: Gateway) -> None:
    body = {"model": "support_bot@v1", "stream": True, "stand_in": {"pause_s": 0.03, "words": 60}}
    before = {each["id"] for each in gateway.records("request")}
    read_some(gateway, "/v1/chat/completions", body | ENDPOINTS["/v1/chat/completions"], 3, cut=False)
    time.sleep(0.1)
    gateway.client.get("/healthz")
    [mine] = [each for each in gateway.records("request") if each["id"] not in before]
    record = gateway.record("aborted", mine["id"])
    assert "output" not in record
    assert record["output_bytes"] > 0


@pytest.mark.parametrize("stream", [False, True])
def test_what_was_withheld_is_not_on_the_record_as_sent(gateway: Gateway, stream: bool) -> None:
    wrong = {"digest": "sha256:" + "0" * 64, "words": 2}
    answer = gateway.ask(gateway.key(), model=HIGH, stream=stream, stand_in=wrong)
    record = gateway.record("response", answer.headers["x-request-id"])
    assert record["reason"] == "digest_mismatch"
    assert record["output"] == ("".join(WORDS[:2]) if stream else ""), (
        "a stream's digest comes after its text"
    )
    assert record["output_sha256"] == hashlib.sha256(answer.content).hexdigest()


@pytest.mark.parametrize("chunked", [False, True])
def test_an_answer_beyond_the_limit_is_told_as_that_and_on_the_record(
    gateway: Gateway, chunked: bool
) -> None:
    key = gateway.key()
    for model in ("support_bot@v1", HIGH):
        how = {"words": BODY_LIMIT_BYTES // 3, "chunked": chunked}
        answer = gateway.ask(key, model=model, stand_in=how)
        assert error_of(answer) == (502, "answer_too_large")
        assert "Ask for a shorter one" in answer.json()["error"]["message"]
        record = gateway.record("response", answer.headers["x-request-id"])
        assert (record["status"], record["reason"]) == (502, "answer_too_large")
        assert record["output_sha256"] == hashlib.sha256(answer.content).hexdigest()
    assert gateway.ask(key, model="support_bot@v1", stand_in={"words": 1000}).status_code == 200


def test_the_lists_of_models_are_on_the_record(gateway: Gateway) -> None:
    key = gateway.key()
    headers = {"authorization": f"Bearer {key}", "host": "team-a.llm.localhost"}
    for path, requested in (("/v1/models", None), ("/v1/models/support_bot@v2", "support_bot@v2")):
        for method in ("GET", "HEAD"):
            answer = gateway.client.request(method, path, headers=headers)
            assert answer.status_code == 200
            request = gateway.record("request", answer.headers["x-request-id"])
            assert (request["tenant"], request["key"], request["path"]) == ("team-a", key.split("_")[1], path)
            assert (request["requested"], request["stream"]) == (requested, False)
            response = gateway.record("response", answer.headers["x-request-id"])
            assert response["status"] == 200
            if method == "GET":
                assert response["output_sha256"] == hashlib.sha256(answer.content).hexdigest()


NO_REQUESTS = [
    "CONNECT team-a.llm.localhost:443 HTTP/1.1\r\nhost: team-a.llm.localhost:443\r\n\r\n",
    "CONNECT / HTTP/1.1\r\nhost: a\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
    "TRACE /t/team-a/v1/models HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET http://elsewhere.example/t/team-a/v1/models HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    "POST /t/team-a/v1/chat/completions HTTP/1.1\r\nhost: a\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "GET  HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /t/team-a/v1/models HTTP/1.1\r\n\r\n",
    "GET /t/team-a/v1/models HTTP/1.0\r\n\r\n",
    "FOO /t/team-a/v1/models HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET ? HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET # HTTP/1.1\r\nhost: a\r\n\r\n",
]


@pytest.mark.parametrize("text", NO_REQUESTS)
def test_odd_requests_of_http_are_the_client_s_mistake_and_never_the_gateway_s(
    gateway: Gateway, text: str
) -> None:
    before = gateway.records("denied")
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as client:
        client.sendall(text.encode())
        client.shutdown(socket.SHUT_WR)
        arrived = b""
        with contextlib.suppress(ConnectionError, TimeoutError):
            while piece := client.recv(65536):
                arrived += piece
    if arrived:
        status = int(arrived.split()[1])
        assert 400 <= status < 500 or status == 501, arrived
        after = [each for each in gateway.records("denied") if each not in before]
        print(status, after, arrived)
        assert [each["status"] for each in after] == [status]
