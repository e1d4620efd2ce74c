"""What breaks behind the gateway or in it: nothing unrecorded passes; refusals are in OpenAI's shape."""

import fcntl
import hashlib
import json
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from resources.waiting import wait_until
from tests.integration.gateway.conftest import prepared
from tests.integration.gateway.gateways import (
    CHAT,
    DIGESTS,
    Gateway,
    bootstrap,
    envoy_of,
    error_of,
    question,
    script,
)
from tests.servers.ports import free_port

V1 = {"model": "support_bot@v1"}

StartGateway = Callable[..., Gateway]


@pytest.fixture
def start(tmp_path: Path, backends: dict[str, int]) -> Iterator[StartGateway]:
    """Starts a gateway of this test alone; `lua` is added to its script, `known` are its backends."""
    with ExitStack() as stack:

        def begin(lua: str = "", known: dict[str, int] | None = None) -> Gateway:
            home, port = prepared(tmp_path / "home"), free_port()
            configuration = bootstrap(port, script(home) + lua, known or backends, home)
            running: AbstractContextManager[Any] = envoy_of(home, configuration, port)
            process = stack.enter_context(running)
            gateway = stack.enter_context(Gateway(home, port, backends))
            gateway.process_id = process.pid
            return gateway

        yield begin


ERRORS = {
    "OpenAI's": (
        '{"error":{"message":"too long","type":"BadRequestError","param":null,"code":400}}',
        "too long",
    ),
    "vLLM's older": ('{"object":"error","message":"too long","code":400}', "too long"),
    "FastAPI's": ('{"detail":[{"loc":["body"]}]}', "The request failed."),
    "a proxy's": ("<html>no</html>", "The request failed."),
    "none": ("", "The request failed."),
}


@pytest.mark.parametrize("case", ERRORS)
def test_an_error_of_the_engine_passes_in_openai_s_shape_with_a_receipt(gateway: Gateway, case: str) -> None:
    body, message = ERRORS[case]
    answer = gateway.ask(gateway.key(), **V1, stand_in={"status": 400, "body": body})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == message
    assert answer.headers["x-llm-digest"] == DIGESTS["d1"]
    record = gateway.record("response", answer.headers["x-request-id"])
    assert (record["status"], record["reason"]) == (400, "engine_error")


def test_an_overloaded_engine_is_passed_on_with_a_time_to_try_again(gateway: Gateway) -> None:
    body = '{"error":{"message":"full","type":"x","param":null,"code":503}}'
    answer = gateway.ask(gateway.key(), **V1, stand_in={"status": 503, "body": body})
    assert (answer.status_code, answer.json()["error"]["message"]) == (503, "full")
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("body", ["", "[]", "Hello!", '{"choices":'])
def test_an_answer_that_is_no_answer_is_502(gateway: Gateway, body: str) -> None:
    answer = gateway.ask(gateway.key(), **V1, stand_in={"body": body})
    assert error_of(answer) == (502, "bad_gateway")
    assert gateway.record("response", answer.headers["x-request-id"])["reason"] == "bad_answer"


@pytest.mark.parametrize("status", [201, 204, 206, 302, 307, 304])
def test_a_success_of_another_kind_or_a_redirection_is_502(gateway: Gateway, status: int) -> None:
    answer = gateway.ask(gateway.key(), **V1, stand_in={"status": status})
    assert error_of(answer) == (502, "bad_gateway")
    assert gateway.record("response", answer.headers["x-request-id"])["status"] == 502


def test_an_engine_that_cannot_be_reached_is_503_and_nothing_is_said_to_have_answered(
    start: StartGateway,
) -> None:
    gateway = start(known={"d1": free_port()})
    key = gateway.key(limits={"requests_per_minute": 9, "concurrent_requests": 1, "tokens_per_minute": None})
    for _ in range(2):
        answer = gateway.ask(key, **V1)
        assert error_of(answer) == (503, "model_not_live")
        assert "x-llm-digest" not in answer.headers
        assert gateway.record("response", answer.headers["x-request-id"])["reason"] == "unreachable"


def test_a_deployment_that_envoy_does_not_know_is_503(start: StartGateway) -> None:
    gateway = start(known={"another": free_port()})
    assert error_of(gateway.ask(gateway.key(), **V1)) == (503, "model_not_live")


@pytest.mark.parametrize("stream", [True, False])
def test_an_engine_that_dies_in_its_answer_is_told_and_gives_back_the_place(
    gateway: Gateway, stream: bool
) -> None:
    key = gateway.key(
        limits={"requests_per_minute": None, "concurrent_requests": 1, "tokens_per_minute": None}
    )
    for _ in range(2):
        if stream:
            with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
                gateway.ask(key, **V1, stream=True, stand_in={"die_after": 3})
        else:
            assert gateway.ask(key, **V1, stand_in={"die_after": 3}).status_code == 502
        time.sleep(0.06)
        gateway.client.get("/healthz")
    mine = [each["id"] for each in gateway.records("request") if each["key"] == key.split("_")[1]]
    assert len(mine) == 2
    for request_id in mine:
        record = gateway.record("response", request_id)
        expected = (200, "stream_cut") if stream else (502, "bad_gateway")
        assert (record["status"], record["reason"]) == expected, "the client did not go away"
        assert record["first_byte_ms"] > 0


def test_a_stream_that_ends_without_its_end_has_an_error_in_its_place(gateway: Gateway) -> None:
    answer = gateway.ask(gateway.key(), **V1, stream=True, stand_in={"no_end": True})
    *_, last = answer.text.strip().split("\n\n")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "stream_cut"
    assert gateway.record("response", answer.headers["x-request-id"])["reason"] == "stream_cut"


def test_an_engine_s_error_stands_where_its_stream_ends_after_it(gateway: Gateway) -> None:
    said = 'data: {"error": {"message": "out of memory", "code": 500}}\n\n'
    how = {"body": said, "content_type": "text/event-stream"}
    answer = gateway.ask(gateway.key(), **V1, stream=True, stand_in=how)
    assert answer.text == said
    assert gateway.record("response", answer.headers["x-request-id"])["reason"] == "engine_error"


def test_a_stream_that_said_how_long_it_is_has_room_for_what_the_gateway_adds(gateway: Gateway) -> None:
    how = {"body": 'data: {"choices": []}\n\n', "content_type": "text/event-stream"}
    answer = gateway.ask(gateway.key(), **V1, stream=True, stand_in=how)
    last = answer.text.strip().split("\n\n")[-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "stream_cut"
    record = gateway.record("response", answer.headers["x-request-id"])
    assert record["output_sha256"] == hashlib.sha256(answer.content).hexdigest()


ODD_CHOICES = [None, 7, "a", [1], {"message": 7}, {"message": {"tool_calls": [{"function": 7}]}}]


@pytest.mark.parametrize("odd", ODD_CHOICES)
def test_a_choice_of_another_form_is_passed_on_and_recorded_without_its_text(
    gateway: Gateway, odd: object
) -> None:
    said: dict[str, Any] = {"choices": [odd, {"index": 10**9, "message": {"content": "Hi"}}]}
    said["system_fingerprint"] = DIGESTS["d1"]
    said["usage"] = {"prompt_tokens": 10**400, "completion_tokens": "many"}
    answer = gateway.ask(gateway.key(), model="screening@v1", stand_in={"body": json.dumps(said)})
    assert answer.json() == said
    record = gateway.record("response", answer.headers["x-request-id"])
    assert (record["output"], record["prompt_tokens"], record["reason"]) == ("Hi", None, None)


def test_lines_may_end_as_the_standard_allows(gateway: Gateway) -> None:
    answer = gateway.ask(gateway.key(), **V1, stream=True, stand_in={"newline": "\r\n", "cut": 7, "words": 2})
    assert answer.text.endswith("data: [DONE]\r\n\r\n")
    assert "usage" not in answer.text


def test_without_a_place_for_records_nothing_passes(start: StartGateway) -> None:
    gateway = start()
    key = gateway.key()
    spool = gateway.folder / "spool"
    spool.rmdir()
    spool.write_text("a file where the folder should be")
    for given in (key, "wrong"):
        answer = gateway.ask(given)
        assert error_of(answer) == (503, "audit_unavailable")
        assert int(answer.headers["retry-after"]) > 0
    assert not [
        each for each in gateway.seen() if ["x-request-id", answer.headers["x-request-id"]] in each["headers"]
    ]
    assert "a request is not on the record: the spool cannot be opened: Not a directory" in gateway.log()
    spool.unlink()
    assert gateway.ask(key).status_code == 200
    assert len(gateway.records("request")) == 1


def test_with_a_full_disk_nothing_passes_and_no_record_is_half_written(start: StartGateway) -> None:
    gateway = start()
    key = gateway.key()
    gateway.ask(key)
    [file] = (gateway.folder / "spool").glob("*.jsonl")
    room = file.stat().st_size + 100  # not a record more
    _, hard = resource.prlimit(gateway.process_id, resource.RLIMIT_FSIZE)
    resource.prlimit(gateway.process_id, resource.RLIMIT_FSIZE, (room, hard))
    assert error_of(gateway.client.get("/healthz")) == (503, "audit_unavailable"), (
        "before anybody asked in vain"
    )
    for _ in range(30):
        assert error_of(gateway.ask(key)) == (503, "audit_unavailable")
    assert error_of(gateway.client.get("/healthz")) == (503, "audit_unavailable")
    assert file.stat().st_size < room
    told = [
        line for line in gateway.log().splitlines() if "a request is not on the record: the spool" in line
    ]
    assert 1 <= len(told) <= 3  # a line a second
    resource.prlimit(gateway.process_id, resource.RLIMIT_FSIZE, (hard, hard))
    assert gateway.ask(key).status_code == 200
    wait_until(lambda: gateway.client.get("/healthz").status_code == 200, what="health", timeout_s=5)
    assert [record["e"] for record in gateway.records()] == ["request", "response"] * 2


def test_an_answer_that_cannot_be_recorded_is_not_given(start: StartGateway) -> None:
    gateway = start('require("records").response = function() return nil, "no room" end')
    key = gateway.key()
    answer = gateway.ask(key)
    assert error_of(answer) == (500, "audit_unavailable")
    answer = gateway.ask(key, stream=True)
    assert "[DONE]" not in answer.text
    assert answer.text.strip().split("\n\n")[-1].endswith('"code":"audit_unavailable"}}')


def test_where_even_the_refusal_fails_nothing_passes(start: StartGateway) -> None:
    gateway = start(
        'require("outgoing").dress = function() error("broken on purpose") end '
        'require("errors").respond = function() error("broken as well") end '
        'require("alarms").raise = function() error("and this") end'
    )
    answer = gateway.ask(gateway.key(), marker="seen-by-nobody")
    assert answer.status_code == 503
    assert "seen-by-nobody" not in json.dumps([gateway.seen(name) for name in DIGESTS])


BROKEN = {
    "the request": 'require("bodies").read = function() error("broken on purpose") end',
    "the last step": 'require("outgoing").dress = function() error("broken on purpose") end',
    "the answer": 'require("answers").give = function() error("broken on purpose") end',
    "the check of it": 'require("answer_parts").read = function() error("broken on purpose") end',
}


@pytest.mark.parametrize("case", BROKEN)
def test_where_the_filter_fails_nothing_passes(start: StartGateway, case: str) -> None:
    gateway = start(BROKEN[case])
    key = gateway.key(limits={"requests_per_minute": 99, "concurrent_requests": 1, "tokens_per_minute": None})
    for _ in range(2):
        assert error_of(gateway.ask(key)) == (500, "internal_error")
    assert "broken on purpose" in gateway.log()
    reached = 0 if case == "the request" else 2
    assert len(gateway.records("request")) == reached
    assert [each["status"] for each in gateway.records("response")] == [500] * reached
    denied = [(each["tenant"], each["reason"]) for each in gateway.records("denied")]
    assert denied == [("team-a", "internal_error")] * (2 - reached)


def test_where_the_filter_fails_in_a_stream_the_rest_is_withheld(start: StartGateway) -> None:
    gateway = start('require("answer_parts").read = function() error("broken on purpose") end')
    answer = gateway.ask(gateway.key(), stream=True)
    assert answer.content == b""
    [record] = gateway.records("response")
    assert record["reason"] == "internal_error"


def test_a_high_risk_model_s_input_and_output_are_kept(gateway: Gateway) -> None:
    key = gateway.key()
    body = question(model="screening", n=2)
    answer = gateway.client.post(CHAT, json=body, headers={"authorization": f"Bearer {key}"})
    request_id = answer.headers["x-request-id"]
    assert json.loads(gateway.record("request", request_id)["input"]) == body
    text = answer.json()["choices"][0]["message"]["content"]
    assert gateway.record("response", request_id)["output"] == f"{text}\n{text}"
    streamed = gateway.ask(key, model="screening", stream=True, stand_in={"cut": 5})
    assert gateway.record("response", streamed.headers["x-request-id"])["output"] == text
    tool = gateway.ask(key, model="screening", stream=True, stand_in={"tool": True, "words": 1})
    assert gateway.record("response", tool.headers["x-request-id"])["output"] == 'find_invoice {"number":"7"}'
    other = gateway.ask(key, model="support_bot@v1")
    assert "input" not in gateway.record("request", other.headers["x-request-id"])
    assert "output" not in gateway.record("response", other.headers["x-request-id"])


def test_embeddings_and_completions_pass(gateway: Gateway) -> None:
    key = gateway.key()
    answer = gateway.ask(key, **V1, path="/t/team-a/v1/embeddings", input="x", stream=True)
    assert answer.json()["data"][0]["embedding"] == [0.5, 0.25]
    for stream in (True, False):
        answer = gateway.ask(key, **V1, path="/t/team-a/v1/completions", prompt="x", stream=stream)
        assert answer.status_code == 200
        assert gateway.record("response", answer.headers["x-request-id"])["finish_reason"] == "stop"


def test_a_gateway_after_another_has_a_higher_number_whatever_the_clock_says_and_holds_its_lock(
    start: StartGateway,
) -> None:
    gateway = start()
    spool, ahead = gateway.folder / "spool", int(time.time() * 1000) + 200 * 86_400_000
    (spool / f"{ahead}-000007.jsonl").write_text("")
    gateway.ask(gateway.key())
    assert sorted(file.name for file in spool.iterdir()) == [
        f"{ahead}-000007.jsonl",
        f"{ahead + 1}-000001.jsonl",
        f"{ahead + 1}.lock",
    ]
    with (spool / f"{ahead + 1}.lock").open() as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    os.kill(gateway.process_id, signal.SIGKILL)
    with (spool / f"{ahead + 1}.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)


def test_a_spool_file_that_has_grown_is_followed_by_another(start: StartGateway) -> None:
    gateway = start()
    key = gateway.key()
    for _ in range(25):
        assert gateway.ask(key, model="screening", padding="x" * 900_000).status_code == 200
    files = sorted(file.name for file in (gateway.folder / "spool").glob("*.jsonl"))
    assert [name.rpartition("-")[2] for name in files] == ["000001.jsonl", "000002.jsonl"]
    assert len(gateway.records("response")) == 25
    assert {file.stat().st_mode & 0o777 for file in (gateway.folder / "spool").iterdir()} == {0o600}
