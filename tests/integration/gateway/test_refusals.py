"""Who is refused, how that looks from outside, and what the record says."""

import json
import socket
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.integration.gateway.gateways import (
    BODY_LIMIT_BYTES,
    CHAT,
    Gateway,
    backend,
    created,
    error_of,
    new_key,
    question,
    route,
    tenant,
)


def revoked(gateway: Gateway) -> str:
    key = gateway.key()
    gateway.append("keys", {"event": "revoked", "id": key.split("_")[1], "at": time.time(), "by": "tests"})
    return f"Bearer {key}"


KEYS: dict[str, Callable[[Gateway], str | None]] = {
    "no_key": lambda gateway: None,
    "unknown_key": lambda gateway: f"Bearer {new_key()}",
    "revoked": revoked,
    "expired": lambda gateway: f"Bearer {gateway.key(expires=time.time() - 1)}",
    "other_tenant": lambda gateway: f"Bearer {gateway.key('team-b')}",
}


@pytest.mark.parametrize("reason", KEYS)
def test_every_wrong_key_is_refused_alike_and_the_record_says_why(gateway: Gateway, reason: str) -> None:
    value = KEYS[reason](gateway)
    answer = gateway.client.post(CHAT, json=question(), headers={"authorization": value} if value else {})
    assert error_of(answer) == (401, "invalid_api_key")
    unknown = gateway.client.post(CHAT, json=question(), headers={"authorization": f"Bearer {new_key()}"})
    if reason == "no_key":
        assert "No API key was given" in answer.json()["error"]["message"]
    else:
        assert answer.content == unknown.content
    denied = gateway.record("denied", answer.headers["x-request-id"])
    assert (denied["tenant"], denied["status"], denied["reason"]) == ("team-a", 401, reason)
    assert denied["path"] == CHAT
    known = reason not in ("no_key", "unknown_key")
    assert denied["key"] == (value.split("_")[1] if known and value else None)


def _tricks(key: str) -> dict[str, list[tuple[str, str]]]:
    return {
        "a tab": [("authorization", f"Bearer\t{key}")],
        "no scheme": [("authorization", key)],
        "a scheme alone": [("authorization", "Bearer")],
        "an empty one": [("authorization", "")],
        "another scheme": [("authorization", f"Basic {key}")],
        "upper case key": [("authorization", f"Bearer {key.upper()}")],
        "key and more": [("authorization", f"Bearer {key}x")],
        "key without its end": [("authorization", f"Bearer {key[:-1]}")],
        "another secret": [("authorization", f"Bearer {key[:-1]}{'a' if key[-1] != 'a' else 'b'}")],
        "joined by a comma": [("authorization", f"Bearer {key}, Bearer {key}")],
        "twice": [("authorization", f"Bearer {key}"), ("authorization", f"Bearer {key}")],
        "twice, one wrong": [("authorization", f"Bearer {new_key()}"), ("authorization", f"Bearer {key}")],
        "in another header": [("x-api-key", key), ("api-key", key), ("proxy-authorization", f"Bearer {key}")],
        "a token that nobody checked": [("authorization", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.")],
    }


@pytest.mark.parametrize("trick", _tricks(new_key()))
def test_a_key_counts_only_as_the_whole_of_one_authorization_header(gateway: Gateway, trick: str) -> None:
    answer = gateway.client.post(CHAT, json=question(), headers=_tricks(gateway.key())[trick])
    assert error_of(answer) == (401, "invalid_api_key")
    expected = {
        "in another header": "no_key",
        "an empty one": "no_key",
        "a token that nobody checked": "invalid_token",
    }
    denied = gateway.record("denied", answer.headers["x-request-id"])
    assert denied["reason"] == expected.get(trick, "unknown_key")


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "bEaReR ", "Bearer  ", "bearer   "])
def test_the_scheme_has_no_case_and_one_space_or_more_after_it(gateway: Gateway, scheme: str) -> None:
    answer = gateway.client.post(CHAT, json=question(), headers={"authorization": f"{scheme}{gateway.key()}"})
    assert answer.status_code == 200, answer.text


def test_spaces_around_the_header_are_http_s_own(gateway: Gateway) -> None:
    key = f"authorization:  Bearer {gateway.key()} "
    status, _ = gateway.raw(f"POST {CHAT} HTTP/1.1", key, body=json.dumps(question()).encode())
    assert status == 200


def test_a_key_in_the_address_is_no_key_and_is_kept_nowhere(gateway: Gateway) -> None:
    key = gateway.key()
    answer = gateway.client.post(f"{CHAT}?api_key={key}", json=question())
    assert error_of(answer) == (401, "invalid_api_key")
    assert key not in json.dumps(gateway.records())
    assert key not in gateway.log()


def test_an_unknown_tenant_looks_like_a_wrong_key(gateway: Gateway) -> None:
    answer = gateway.ask(gateway.key(), path="/t/nobody/v1/chat/completions")
    assert answer.content == gateway.ask(new_key()).content
    denied = gateway.record("denied", answer.headers["x-request-id"])
    assert (denied["tenant"], denied["reason"]) == (None, "unknown_tenant")


def test_the_host_is_a_door_as_well(gateway: Gateway) -> None:
    key = gateway.key()
    for host in ("team-a.llm.localhost", "TEAM-A.LLM.localhost:8080"):
        answer = gateway.ask(key, path="/v1/chat/completions", headers={"host": host})
        assert answer.status_code == 200, answer.text
    assert gateway.ask(key, headers={"host": "team-a.llm.localhost"}).status_code == 200
    assert gateway.ask(key, headers={"host": "team-b.llm.localhost"}).status_code == 404
    other = gateway.ask(key, path="/v1/chat/completions", headers={"host": "team-b.llm.localhost"})
    assert error_of(other) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/chat/completions",
        "/t/team-a//v1/chat/completions",
        "/t/team-a/v1/../v1/chat/completions",
        "/t/team-a/v1/chat%2Fcompletions",
        "/t/team-a/V1/chat/completions",
        "/t/TEAM-A/v1/chat/completions",
        "/t/team-a%2e/v1/chat/completions",
        "/t/team-b/../team-a/v1/chat/completions",
        "/t//v1/chat/completions",
        "/t/team-a/v1/models/",
        "/t/team-a/v1/models/support_bot/",
        "/t/team-a/v1/responsesx",
        "/t/team-a/healthz",
        "/healthz",
    ],
)
def test_paths_are_matched_exactly(gateway: Gateway, path: str) -> None:
    key = f"authorization: Bearer {gateway.key()}"
    status, body = gateway.raw(f"POST {path} HTTP/1.1", key, body=json.dumps(question()).encode())
    assert (status, json.loads(body)["error"]["code"]) == (404, "unknown_url")


LISTED = ("/t/team-a/v1/models", "/t/team-a/v1/models/support_bot")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", [CHAT, "/t/team-a/v1/responses", *LISTED])
def test_other_methods_are_refused_with_those_that_are_allowed(
    gateway: Gateway, path: str, method: str
) -> None:
    allowed = "GET, HEAD" if path in LISTED else "POST"
    if method in allowed:
        return
    answer = gateway.client.request(method, path, headers={"authorization": f"Bearer {gateway.key()}"})
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    if method != "HEAD":
        assert error_of(answer) == (405, "method_not_allowed")
    assert gateway.record("denied", answer.headers["x-request-id"])["reason"] == "unknown_url"


BODIES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "The request has no body."),
    "no JSON": (b"model=support_bot", "The body is not valid JSON."),
    "a list": (b"[]", "The body is not a JSON object."),
    "no model": (b'{"messages":[]}', "'model' is missing."),
    "a model that is no string": (b'{"model":7}', "'model' must be a string."),
    "two models": (b'{"model":"support_bot","model":"screening"}', "two members 'model'"),
    "a model twice in disguise": (
        b'{"model":"support_bot","m\\u006fdel":"screening"}',
        "two members 'model'",
    ),
    "two streams": (b'{"model":"support_bot","stream":false,"stream":true}', "two members 'stream'"),
    "a stream that pydantic would take for true": (
        b'{"model":"support_bot","stream":"yes"}',
        "'stream' must be",
    ),
    "a stream of 1": (b'{"model":"support_bot","stream":1}', "'stream' must be"),
    "odd options": (b'{"model":"support_bot","stream":true,"stream_options":[]}', "'stream_options' must be"),
    "odd usage": (
        b'{"model":"support_bot","stream":true,"stream_options":{"include_usage":1}}',
        "include_usage' must be",
    ),
    "UTF-16": ('{"model":"support_bot"}'.encode("utf-16"), "not valid JSON"),
    "a byte order mark": (b'\xef\xbb\xbf{"model":"support_bot"}', "not valid JSON"),
    "broken UTF-8": (b'{"model":"support_bot","messages":"\xc0\xaf"}', "not valid JSON"),
    "NaN": (b'{"model":"support_bot","temperature":NaN}', "not valid JSON"),
    "something after it": (b'{"model":"support_bot"}{}', "not valid JSON"),
    "a nest of 1000": (b'{"model":"support_bot","a":' + b"[" * 1000 + b"]" * 1000 + b"}", "not valid JSON"),
    "a lone surrogate": (b'{"model":"\\ud800"}', "'model' is not valid Unicode."),
    "a zero byte": (b'{"model":"support_bot\x00"}', "not valid JSON"),
}


@pytest.mark.parametrize("case", BODIES)
def test_a_body_that_vllm_could_read_otherwise_is_refused(gateway: Gateway, case: str) -> None:
    content, message = BODIES[case]
    headers = {"authorization": f"Bearer {gateway.key()}", "content-type": "application/json"}
    answer = gateway.client.post(CHAT, content=content, headers=headers)
    assert error_of(answer) == (400, "bad_request")
    assert message in answer.json()["error"]["message"]
    assert gateway.record("denied", answer.headers["x-request-id"])["reason"] == "bad_request"


def test_a_compressed_body_is_refused(gateway: Gateway) -> None:
    answer = gateway.ask(gateway.key(), headers={"content-encoding": "gzip"})
    assert error_of(answer) == (415, "unsupported_media_type")


def test_a_body_that_is_too_large_is_refused_and_recorded_with_its_tenant(gateway: Gateway) -> None:
    key = gateway.key()
    answer = gateway.ask(key, padding="x" * (2 * BODY_LIMIT_BYTES))
    assert error_of(answer) == (413, "request_too_large")
    denied = gateway.record("denied", answer.headers["x-request-id"])
    assert (denied["tenant"], denied["key"], denied["reason"]) == ("team-a", key.split("_")[1], "too_large")


def test_a_key_asks_only_its_models_and_risk_classes(gateway: Gateway) -> None:
    one_model = gateway.key(models=["screening"])
    answer = gateway.ask(one_model)
    assert error_of(answer) == (403, "permission_denied")
    denied = gateway.record("denied", answer.headers["x-request-id"])
    assert (denied["reason"], denied["requested"]) == ("model", "support_bot")
    assert gateway.ask(one_model, model="screening").status_code == 200
    one_class = gateway.key(risk_classes=["limited"])
    assert gateway.ask(one_class).status_code == 200
    answer = gateway.ask(one_class, model="screening")
    assert error_of(answer) == (403, "permission_denied")
    assert gateway.record("denied", answer.headers["x-request-id"])["reason"] == "risk_class"


def test_a_tenant_asks_only_its_risk_classes_whatever_the_key_says(gateway: Gateway) -> None:
    gateway.append("tenants", tenant("careful", {"screening": "high"}, risk_classes=["minimal"]))
    gateway.append("routes", route("careful", "screening", backend("d1")))
    key = gateway.key("careful", risk_classes=["high"])
    answer = gateway.ask(key, path="/t/careful/v1/chat/completions", model="screening")
    assert error_of(answer) == (403, "permission_denied")


@pytest.mark.parametrize(
    "model", ["nothing", "support_bot@nothing", "support_bot@", "@production", "Support_Bot", ""]
)
def test_an_unknown_model_or_version_is_404(gateway: Gateway, model: str) -> None:
    answer = gateway.ask(gateway.key(), model=model)
    assert error_of(answer) == (404, "model_not_found")
    assert gateway.record("denied", answer.headers["x-request-id"])["requested"] == model


def test_a_model_without_a_live_version_is_503_with_a_time_to_try_again(gateway: Gateway) -> None:
    key = gateway.key()
    for _ in range(2):
        answer = gateway.ask(key, model="idle_bot")
        assert error_of(answer) == (503, "model_not_live")
        assert int(answer.headers["retry-after"]) > 0
        gateway.append("routes", route("team-a", "idle_bot"))


def test_a_key_that_is_revoked_while_the_body_is_on_its_way_is_refused(gateway: Gateway) -> None:
    key = gateway.key()
    body = json.dumps(question()).encode()
    lines = [
        f"POST {CHAT} HTTP/1.1",
        "host: a",
        f"authorization: Bearer {key}",
        f"content-length: {len(body)}",
    ]
    head = "\r\n".join([*lines, "", ""])
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as client:
        client.sendall(head.encode() + body[:-1])
        time.sleep(0.2)
        gateway.append(
            "keys", {"event": "revoked", "id": key.split("_")[1], "at": time.time(), "by": "tests"}
        )
        client.sendall(body[-1:])
        assert client.recv(64).startswith(b"HTTP/1.1 401")


def test_the_listing_has_what_the_key_may_ask_and_is_live(gateway: Gateway) -> None:
    def listed(**more: Any) -> list[str]:
        headers = {"authorization": f"Bearer {gateway.key(**more)}"}
        answer = gateway.client.get("/t/team-a/v1/models", headers=headers)
        assert answer.json()["object"] == "list"
        assert {model["owned_by"] for model in answer.json()["data"]} <= {"team-a"}
        return [model["id"] for model in answer.json()["data"]]

    names = ["screening", "screening@production", "screening@v1", "support_bot", "support_bot@candidate"]
    assert listed() == [*names, "support_bot@production", "support_bot@v1", "support_bot@v2"]
    assert listed(risk_classes=["high"]) == names[:3]
    assert listed(models=[]) == []


def test_the_health_check_needs_no_key(gateway: Gateway) -> None:
    answer = gateway.client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_a_name_that_is_text_of_json_stays_text_in_the_record(gateway: Gateway) -> None:
    name = 'a","reason":"none\n\\é'
    answer = gateway.ask(gateway.key(), model=name)
    assert gateway.record("denied", answer.headers["x-request-id"])["requested"] == name


def test_a_key_of_the_listing_of_another_tenant_is_refused(gateway: Gateway) -> None:
    headers = {"authorization": f"Bearer {gateway.key('team-b')}"}
    assert error_of(gateway.client.get("/t/team-a/v1/models", headers=headers)) == (401, "invalid_api_key")


def test_a_request_that_waits_for_leave_to_send_its_body_is_told_to_go_on(gateway: Gateway) -> None:
    body = json.dumps(question()).encode()
    lines = [
        f"POST {CHAT} HTTP/1.1",
        "host: a",
        f"authorization: Bearer {gateway.key()}",
        "expect: 100-continue",
    ]
    head = "\r\n".join([*lines, f"content-length: {len(body)}", "", ""])
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as client:
        client.sendall(head.encode())
        assert client.recv(64).startswith(b"HTTP/1.1 100")
        client.sendall(body)
        assert client.recv(64).startswith(b"HTTP/1.1 200")


def test_no_key_is_in_a_log_or_a_record(gateway: Gateway) -> None:
    key = gateway.key()
    gateway.ask(key)
    gateway.ask(key, model="nothing")
    everything = gateway.log() + json.dumps(gateway.records())
    assert key not in everything
    assert created(key, "team-a")["hash"] not in everything


def test_a_chunked_request_is_read_as_well(gateway: Gateway) -> None:
    body = json.dumps(question(model="support_bot@v1")).encode()
    headers = {"authorization": f"Bearer {gateway.key()}", "content-type": "text/plain"}
    answer = httpx.post(
        f"http://127.0.0.1:{gateway.port}{CHAT}", content=iter([body[:9], body[9:]]), headers=headers
    )
    assert answer.status_code == 200, answer.text
    seen = gateway.seen()[-1]
    assert json.loads(seen["body"]) == question()
    assert dict(seen["headers"])["content-type"] == "application/json"


GRAMMAR_BYTES = 32 * 1024
FOLLOWED: dict[str, Callable[[str], dict[str, Any]]] = {
    "a JSON schema": lambda text: {"response_format": {"type": "json_schema", "json_schema": text}},
    "a structural tag": lambda text: {"response_format": {"type": "structural_tag", "structures": [text]}},
    "a regex": lambda text: {"structured_outputs": {"regex": text}},
    "choices": lambda text: {"structured_outputs": {"choice": [text, "or not"]}},
    "a grammar": lambda text: {"structured_outputs": {"grammar": text}},
    "the format of a response": lambda text: {"text": {"format": {"type": "json_schema", "schema": text}}},
    "a tool that is named": lambda text: {
        "tools": [text],
        "tool_choice": {"type": "function", "function": {"name": "a"}},
    },
    "tools of which one is required": lambda text: {"tools": [text], "tool_choice": "required"},
}
OFFERED: dict[str, dict[str, Any]] = {
    "auto": {"tool_choice": "auto"},
    "none": {"tool_choice": "none"},
    "null": {"tool_choice": None},
    "unsaid": {},
}


@pytest.mark.parametrize("what", FOLLOWED)
def test_what_an_answer_has_to_follow_has_a_limit(gateway: Gateway, what: str) -> None:
    for text, status in (("ab" * (GRAMMAR_BYTES // 4), 200), ("ab" * (GRAMMAR_BYTES // 2), 400)):
        members = FOLLOWED[what](text)
        answer = gateway.client.post(
            CHAT, json=question(**members), headers={"authorization": f"Bearer {gateway.key()}"}
        )
        assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["param"] == next(iter(members))
    assert f"may have {GRAMMAR_BYTES} bytes at most" in error["message"]


@pytest.mark.parametrize("choice", OFFERED)
def test_tools_that_are_only_offered_may_be_long(gateway: Gateway, choice: str) -> None:
    members = {"tools": ["a" * 2 * GRAMMAR_BYTES], **OFFERED[choice]}
    answer = gateway.client.post(
        CHAT, json=question(**members), headers={"authorization": f"Bearer {gateway.key()}"}
    )
    assert answer.status_code == 200, answer.text
