"""Limits are exact under load, and who goes away gives his place back."""

import asyncio
import json
import socket
import time
from collections import Counter
from typing import Any

import pytest

from tests.integration.gateway.gateways import (
    CHAT,
    Gateway,
    backend,
    concurrently,
    error_of,
    question,
    route,
    tenant,
)
from tests.servers.openai_stand_in import PROMPT_TOKENS

REQUESTS, CONCURRENT, TOKENS = "requests_per_minute", "concurrent_requests", "tokens_per_minute"


def limits(**given: int) -> dict[str, Any]:
    return {"limits": {REQUESTS: None, CONCURRENT: None, TOKENS: None} | given}


def test_of_500_requests_at_once_against_a_limit_of_100_exactly_100_pass(gateway: Gateway) -> None:
    key = gateway.key(**limits(requests_per_minute=100))
    answers = concurrently(gateway, key, 500)
    assert Counter(answer.status_code for answer in answers) == {200: 100, 429: 400}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert error_of(refused) == (429, "rate_limit_exceeded")
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-ratelimit-limit-requests"] == "100"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert gateway.record("denied", refused.headers["x-request-id"])["reason"] == REQUESTS


def test_an_answer_says_what_remains_of_the_tighter_limit(gateway: Gateway) -> None:
    gateway.append("tenants", tenant("metered", {"support_bot": "limited"}, **limits(requests_per_minute=10)))
    gateway.append("routes", route("metered", "support_bot", backend("d1")))
    key = gateway.key("metered", **limits(requests_per_minute=3))
    left = []
    for _ in range(4):
        answer = gateway.ask(key, path="/t/metered/v1/chat/completions")
        left.append((answer.status_code, answer.headers["x-ratelimit-remaining-requests"]))
    assert left == [(200, "2"), (200, "1"), (200, "0"), (429, "0")]
    other = gateway.ask(gateway.key("metered"), path="/t/metered/v1/chat/completions")
    # What the key was refused did not count for its tenant.
    assert other.headers["x-ratelimit-remaining-requests"] == "6"
    assert other.headers["x-ratelimit-reset-requests"].endswith("s")


def test_a_tenant_s_limit_counts_all_of_its_keys(gateway: Gateway) -> None:
    gateway.append("tenants", tenant("small", {"support_bot": "limited"}, **limits(requests_per_minute=5)))
    gateway.append("routes", route("small", "support_bot", backend("d1")))
    keys = [gateway.key("small") for _ in range(3)]
    codes = [
        gateway.ask(key, path="/t/small/v1/chat/completions").status_code for key in keys for _ in range(3)
    ]
    assert codes == [200] * 5 + [429] * 4


def test_a_refused_request_costs_nothing(gateway: Gateway) -> None:
    key = gateway.key(**limits(requests_per_minute=2))
    for _ in range(3):
        assert gateway.ask(key, model="nothing").status_code == 404
    assert [gateway.ask(key).status_code for _ in range(3)] == [200, 200, 429]


def test_never_more_than_so_many_at_once(gateway: Gateway) -> None:
    key = gateway.key(**limits(concurrent_requests=7))
    answers = concurrently(gateway, key, 100, stand_in={"delay_s": 1.0})
    assert Counter(answer.status_code for answer in answers) == {200: 7, 429: 93}
    assert {error_of(answer)[1] for answer in answers if answer.status_code == 429} == {"rate_limit_exceeded"}
    assert gateway.ask(key).status_code == 200


def _leave(gateway: Gateway, key: str, **members: Any) -> None:
    """Asks and goes away: at once, or once a stream has begun."""
    body = json.dumps(question(**members)).encode()
    lines = [
        f"POST {CHAT} HTTP/1.1",
        "host: a",
        f"authorization: Bearer {key}",
        f"content-length: {len(body)}",
    ]
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as client:
        client.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        if members.get("stream"):
            arrived = client.recv(65536)
            while b"data: " not in arrived and b" 429 " not in arrived:
                arrived += client.recv(65536)
        else:
            time.sleep(0.1)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_gives_its_place_back_and_is_on_the_record(
    gateway: Gateway, stream: bool
) -> None:
    key = gateway.key(**limits(concurrent_requests=2))
    slow = {"pause_s": 0.2, "words": 100} if stream else {"delay_s": 20}
    for _ in range(5):
        for _ in range(2):
            _leave(gateway, key, stream=stream, stand_in=slow)
        time.sleep(0.1)  # what the limit collects at most every 50 ms
        assert gateway.ask(key).status_code == 200
    mine = [each for each in gateway.records("request") if each["key"] == key.split("_")[1]]
    aborted = {each["id"]: each for each in gateway.records("aborted")}
    assert sum(each["id"] in aborted for each in mine) == 10
    first_bytes = {aborted[each["id"]]["first_byte_ms"] is not None for each in mine if each["id"] in aborted}
    assert first_bytes == {stream}


def test_the_health_check_finds_who_went_away(gateway: Gateway) -> None:
    key = gateway.key()
    _leave(gateway, key, stream=True, stand_in={"pause_s": 0.2, "words": 100})
    time.sleep(0.1)
    gateway.client.get("/healthz")
    [mine] = [each["id"] for each in gateway.records("request") if each["key"] == key.split("_")[1]]
    assert gateway.record("aborted", mine)["first_byte_ms"] > 0


def test_tokens_settle_when_an_answer_ends(gateway: Gateway) -> None:
    key = gateway.key(**limits(tokens_per_minute=3 * PROMPT_TOKENS))
    codes = []
    for stream in (False, True, False, False):
        answer = gateway.ask(key, stream=stream, stand_in={"words": 5})
        codes.append(answer.status_code)
    assert codes == [200, 200, 200, 429]  # 16 tokens each, and 33 a minute
    assert error_of(answer) == (429, "rate_limit_exceeded")
    assert 0 < int(answer.headers["retry-after"]) <= 61
    assert gateway.record("denied", answer.headers["x-request-id"])["reason"] == TOKENS


def test_who_leaves_every_stream_before_its_end_pays_for_it(gateway: Gateway) -> None:
    key = gateway.key(**limits(tokens_per_minute=60, concurrent_requests=1))
    for _ in range(8):
        answer = gateway.ask(key, model="nothing")  # costs nothing, but the health check finds who left
        gateway.client.get("/healthz")
        time.sleep(0.06)
        answer = gateway.ask(key, stream=True, stand_in={"words": 1})
        if answer.status_code == 429:
            break
        _leave(gateway, key, stream=True, stand_in={"pause_s": 0.2, "words": 100})
        time.sleep(0.06)
    assert gateway.record("denied", answer.headers["x-request-id"])["reason"] == TOKENS


def test_a_limit_that_changes_counts_from_the_next_request_on(gateway: Gateway) -> None:
    key = gateway.key(**limits(requests_per_minute=1))
    assert [gateway.ask(key).status_code for _ in range(2)] == [200, 429]
    [event] = [each for each in _keys(gateway) if each["id"] == key.split("_")[1]]
    gateway.append("keys", event | limits(requests_per_minute=3))
    assert [gateway.ask(key).status_code for _ in range(3)] == [200, 200, 429]
    gateway.append("keys", event | {"limits": None})
    assert gateway.ask(key).status_code == 200


def _keys(gateway: Gateway) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (gateway.folder / "keys.jsonl").read_text().splitlines()]


def test_many_keys_at_once_are_counted_apart(gateway: Gateway) -> None:
    keys = [gateway.key(**limits(requests_per_minute=20)) for _ in range(5)]

    async def ask_all() -> list[int]:
        answers = await asyncio.gather(*(asyncio.to_thread(concurrently, gateway, key, 40) for key in keys))
        return [sum(answer.status_code == 200 for answer in of_one) for of_one in answers]

    assert asyncio.run(ask_all()) == [20] * 5


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ({"n": 500}, CHAT),
        ({"best_of": 500, "prompt": "x"}, "/t/team-a/v1/completions"),
        ({"prompt": ["x"] * 500}, "/t/team-a/v1/completions"),
        ({"prompt": [[1, 2]] * 500}, "/t/team-a/v1/completions"),
        ({"max_tokens": 500}, CHAT),
        ({"max_completion_tokens": 500}, CHAT),
        ({"min_tokens": 500}, CHAT),
        ({"n": 5, "max_tokens": 3}, CHAT),
        ({"max_output_tokens": 11}, "/t/team-a/v1/responses"),
        ({"input": ["x"] * 500}, "/t/team-a/v1/embeddings"),
        ({"n": 1e300}, CHAT),
    ],
)
def test_a_request_that_may_cost_more_than_a_minute_s_tokens_costs_none(
    gateway: Gateway, asked: dict[str, Any], path: str
) -> None:
    key = gateway.key(**limits(tokens_per_minute=10))
    answer = gateway.ask(key, path=path, **asked)
    assert error_of(answer) == (429, "rate_limit_exceeded")
    assert "may cost more tokens than this key" in answer.json()["error"]["message"]
    assert answer.json()["error"]["type"] == "tokens"
    assert gateway.record("denied", answer.headers["x-request-id"])["reason"] == "tokens_of_a_request"
    assert gateway.ask(key).status_code == 200, "nothing of the limit was used"


@pytest.mark.parametrize("name", ["n", "best_of", "max_tokens", "max_completion_tokens", "min_tokens"])
@pytest.mark.parametrize("value", ["500", True, 1.5, [500]])
def test_a_number_that_vllm_could_read_otherwise_is_refused(gateway: Gateway, name: str, value: Any) -> None:
    answer = gateway.ask(gateway.key(), **{name: value})
    assert error_of(answer) == (400, "bad_request")
    assert answer.json()["error"]["message"] == f"'{name}' must be a whole number."


def test_what_requests_in_flight_may_cost_is_kept_free_for_them(gateway: Gateway) -> None:
    key = gateway.key(**limits(tokens_per_minute=100))
    answers = concurrently(gateway, key, 20, max_tokens=30, stand_in={"delay_s": 0.5})
    assert Counter(answer.status_code for answer in answers) == {200: 3, 429: 17}


def test_what_was_spent_beyond_a_limit_is_paid_off_later(gateway: Gateway) -> None:
    key = gateway.key(**limits(tokens_per_minute=60))
    assert gateway.ask(key, stand_in={"words": 300 - PROMPT_TOKENS}).status_code == 200
    answer = gateway.ask(key)
    assert answer.status_code == 429
    assert 230 < int(answer.headers["retry-after"]) <= 240, "300 tokens, at one a second"
