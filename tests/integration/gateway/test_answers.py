"""What comes back through the gateway: answers, receipts, records."""

import hashlib
import json
from typing import Any

import pytest

from tests.integration.gateway.gateways import DIGESTS, ENGINE_KEY, Gateway, error_of, question
from tests.servers.openai_stand_in import PROMPT_TOKENS, WORDS


def events(text: str) -> list[str]:
    return [event.removeprefix("data: ") for event in text.split("\n\n") if event]


def said(text: str) -> str:
    """What a stream's events say, put together."""
    chunks = [json.loads(event) for event in events(text)[:-1]]
    return "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)


def test_an_answer_comes_with_a_receipt_and_leaves_a_record(gateway: Gateway) -> None:
    key = gateway.key()
    answer = gateway.ask(key, model="support_bot@production", temperature=0.5, user="customer-7")
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "".join(WORDS)
    receipt = {name: answer.headers[f"x-llm-{name}"] for name in ("model", "version", "digest", "deployment")}
    assert receipt == {"model": "support_bot", "version": "v1", "digest": DIGESTS["d1"], "deployment": "d1"}
    request_id = answer.headers["x-request-id"]
    request = gateway.record("request", request_id)
    body = question(model="support_bot@production", temperature=0.5, user="customer-7")
    sent = gateway.client.build_request("POST", "/", json=body).content
    assert request | {"at": 0, "host": ""} == receipt | {
        "e": "request",
        "id": request_id,
        "at": 0,
        "tenant": "team-a",
        "via": "key",
        "key": key.split("_")[1],
        "actor": "ada",
        "subject": "customer-7",
        "host": "",
        "path": "/t/team-a/v1/chat/completions",
        "requested": "support_bot@production",
        "risk_class": "limited",
        "stream": False,
        "sampling": {"temperature": 0.5},
        "input_sha256": hashlib.sha256(sent).hexdigest(),
        "input_bytes": len(sent),
        "remote": "127.0.0.1",
    }
    response = gateway.record("response", request_id)
    assert response["at"] > request["at"]
    assert response["ms"] >= response["first_byte_ms"] > 0
    assert response | {"at": 0, "ms": 0, "first_byte_ms": 0} == {
        "e": "response",
        "id": request_id,
        "at": 0,
        "status": 200,
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": len(WORDS),
        "finish_reason": "stop",
        "served_digest": DIGESTS["d1"],
        "output_sha256": hashlib.sha256(answer.content).hexdigest(),
        "output_bytes": len(answer.content),
        "first_byte_ms": 0,
        "ms": 0,
        "reason": None,
    }


def test_the_engine_sees_its_own_key_and_the_plain_name_of_the_model(gateway: Gateway) -> None:
    headers = {
        "cookie": "a=b",
        "x-llm-tenant": "team-b",
        "x-forwarded-for": "10.1.2.3",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-request-id": "mine",
    }
    answer = gateway.ask(gateway.key(), model="support_bot@v1", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-request-id"] != "mine"
    [seen] = [
        each for each in gateway.seen() if ["x-request-id", answer.headers["x-request-id"]] in each["headers"]
    ]
    assert seen["line"] == "POST /v1/chat/completions HTTP/1.1"
    assert json.loads(seen["body"]) == question()
    arrived = dict(seen["headers"])
    assert arrived["authorization"] == f"Bearer {ENGINE_KEY}"
    assert not {"cookie", "x-llm-tenant", "x-forwarded-for", "x-envoy-upstream-rq-timeout-ms"} & set(arrived)


@pytest.mark.parametrize("cut", [None, *range(1, 12)])
def test_a_stream_passes_wherever_it_is_cut_and_the_usage_that_nobody_asked_for_is_taken_out(
    gateway: Gateway, cut: int | None
) -> None:
    answer = gateway.ask(
        gateway.key(), model="support_bot@v1", stream=True, stand_in={"cut": cut, "words": 3}
    )
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert said(answer.text) == "".join(WORDS[:3])
    assert "usage" not in answer.text
    assert events(answer.text)[-1] == "[DONE]"
    assert answer.headers["x-llm-digest"] == DIGESTS["d1"]
    record = gateway.record("response", answer.headers["x-request-id"])
    assert (record["prompt_tokens"], record["completion_tokens"]) == (PROMPT_TOKENS, 3)
    assert record["output_sha256"] == hashlib.sha256(answer.content).hexdigest()
    assert (record["finish_reason"], record["served_digest"]) == ("stop", DIGESTS["d1"])


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("options", [{"include_usage": True}, {"include_usage": False}, {}, None])
def test_a_stream_has_usage_if_the_client_asks_for_it(
    gateway: Gateway, options: dict[str, bool] | None, first: bool
) -> None:
    more = {"stream": True, "stream_options": options}
    body = more | question() if first else question() | more
    key = gateway.key()
    answer = gateway.client.post(
        "/t/team-a/v1/chat/completions",
        json=body | {"model": "support_bot@v1"},
        headers={"authorization": f"Bearer {key}"},
    )
    with_usage = [event for event in events(answer.text)[:-1] if json.loads(event).get("usage")]
    assert len(with_usage) == (1 if (options or {}).get("include_usage") else 0)
    assert gateway.record("response", answer.headers["x-request-id"])["prompt_tokens"] == PROMPT_TOKENS


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("how", [{"digest": "sha256:other"}, {"nameless": True}])
def test_an_answer_of_another_version_than_the_promoted_one_is_withheld(
    gateway: Gateway, path: str, how: dict[str, object]
) -> None:
    answer = gateway.ask(gateway.key(), path=f"/t/team-a{path}", model="support_bot@v1", stand_in=how)
    assert error_of(answer) == (502, "served_digest_mismatch")
    assert "x-llm-digest" not in answer.headers
    record = gateway.record("response", answer.headers["x-request-id"])
    assert (record["status"], record["reason"]) == (502, "digest_mismatch")
    assert record["served_digest"] == how.get("digest")
    promoted = f"team-a/support_bot was promoted as {DIGESTS['d1']} and answers as "
    assert f"digest mismatch of deployment d1: {promoted}" in gateway.log()


@pytest.mark.parametrize("how", [{"digest": "sha256:other"}, {"nameless": True}])
def test_a_stream_of_another_version_ends_in_an_error_and_not_in_its_end(
    gateway: Gateway, how: dict[str, object]
) -> None:
    answer = gateway.ask(gateway.key(), model="support_bot@v1", stream=True, stand_in=how)
    *_, last = events(answer.text)
    assert json.loads(last)["error"]["code"] == "served_digest_mismatch"
    record = gateway.record("response", answer.headers["x-request-id"])
    assert record["reason"] == "digest_mismatch"
    assert record["output_sha256"] == hashlib.sha256(answer.content).hexdigest()


def test_a_body_may_be_written_with_spaces_and_lines(gateway: Gateway) -> None:
    headers = {"authorization": f"Bearer {gateway.key()}"}
    body = question(model="support_bot@v1", stream=True, stream_options={"include_usage": True})
    for text in (json.dumps(body, indent=2), f"\n {json.dumps(body)} \n"):
        answer = gateway.client.post("/t/team-a/v1/chat/completions", content=text, headers=headers)
        assert answer.status_code == 200, answer.text
        assert json.loads(gateway.seen()[-1]["body"]) == body | {"model": "support_bot"}
        assert '"usage"' in answer.text


def test_all_of_a_body_but_the_model_arrives_as_it_was_sent(gateway: Gateway) -> None:
    headers = {"authorization": f"Bearer {gateway.key()}"}
    rest = (
        r'"n" : 2,"logprobs":true, "temperature":1.0,"seed":1E2,"tools":[{"type":"function",'
        r'"function":{"name":"f","parameters":{"model":"inner","type":"object"}}}],"echo":false,"messages":[{"role":"user","content":'
        r'"\u0041 \"model\":\"x\" é \ud83d\ude00"}],"metadata":{"model":"m"}'
    )
    for sent, arrived in (
        (f'{{"model":"support_bot@v1",{rest}}}', f'{{"model":"support_bot",{rest}}}'),
        (f' {{{rest} , "model" : "support\\u005fbot@v1"}}\n', f' {{{rest} , "model" : "support_bot"}}\n'),
    ):
        answer = gateway.client.post("/t/team-a/v1/chat/completions", content=sent.encode(), headers=headers)
        assert answer.status_code == 200, answer.text
        assert gateway.seen()[-1]["body"] == arrived
        sampling = gateway.record("request", answer.headers["x-request-id"])["sampling"]
        assert sampling == {"n": 2, "logprobs": True, "temperature": 1.0, "seed": 100.0}


def test_the_person_behind_a_request_is_on_the_record_and_not_told_to_the_engine(gateway: Gateway) -> None:
    headers = {"x-llm-subject": "customer-é", "x-llm-affinity": "a"}
    encoded = {name: value.encode() for name, value in headers.items()}
    answer = gateway.ask(gateway.key(), headers=encoded, user="somebody else")
    assert gateway.record("request", answer.headers["x-request-id"])["subject"] == "customer-é"
    deployment = answer.headers["x-llm-deployment"]
    assert not set(headers) & set(dict(gateway.seen(deployment)[-1]["headers"]))


def test_what_a_server_cut_short_when_it_was_told_to_end_is_no_answer(gateway: Gateway) -> None:
    told: dict[str, Any] = {"model": "support_bot@v1", "stand_in": {"finish_reason": "abort"}}
    whole = gateway.ask(gateway.key(), **told)
    assert error_of(whole) == (503, "model_not_live")
    assert int(whole.headers["retry-after"]) > 0
    stream = gateway.ask(gateway.key(), stream=True, **told)
    *_, last = events(stream.text)
    assert json.loads(last)["error"]["code"] == "model_not_live"
    for answer in (whole, stream):
        record = gateway.record("response", answer.headers["x-request-id"])
        assert (record["finish_reason"], record["reason"]) == ("abort", "engine_stopped")
