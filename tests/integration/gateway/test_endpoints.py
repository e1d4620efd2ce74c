"""What is served: models one by one, the Responses API; and what is not, each by a sentence."""

import ast
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.gateway.gateways import Gateway, error_of
from tests.integration.gateway.test_answers import events
from tests.servers.openai_stand_in import PROMPT_TOKENS, WORDS

RESPONSES = "/t/team-a/v1/responses"
SERVED = {
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/responses"),
    ("GET", "/v1/models"),
}
OF_OPENAI = [
    "/v1/audio/speech",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/videos",
    "/v1/moderations",
    "/v1/files",
    "/v1/files/file-1/content",
    "/v1/uploads",
    "/v1/batches",
    "/v1/fine_tuning/jobs",
    "/v1/vector_stores",
    "/v1/assistants",
    "/v1/threads/t/runs",
    "/v1/conversations",
    "/v1/containers",
    "/v1/evals",
    "/v1/responses/resp_1/input_items",
    "/v1/chat/completions/chatcmpl-1",
    "/v1/chat/completions/c/messages",
]


def respond(gateway: Gateway, model: str = "support_bot@v1", **more: Any) -> httpx.Response:
    body = {"model": model, "input": "Where is my invoice?", **more}
    return gateway.client.post(RESPONSES, json=body, headers={"authorization": f"Bearer {gateway.key()}"})


def refusal(gateway: Gateway, method: str, path: str) -> tuple[int, str, str]:
    answer = gateway.client.request(
        method, f"/t/team-a{path}", headers={"authorization": f"Bearer {gateway.key()}"}
    )
    status, code = error_of(answer)
    return status, code, answer.json()["error"]["message"]


def test_a_response_comes_with_its_receipt_and_leaves_a_record(gateway: Gateway) -> None:
    answer = respond(gateway, model="support_bot@production", max_output_tokens=7, instructions="Be kind.")
    assert answer.status_code == 200, answer.text
    assert answer.json()["output"][0]["content"][0]["text"] == "".join(WORDS)
    assert answer.headers["x-llm-version"] == "v1"
    assert json.loads(gateway.seen()[-1]["body"])["model"] == "support_bot@v1", (
        "no other server knows that name"
    )
    request, response = (
        gateway.record(kind, answer.headers["x-request-id"]) for kind in ("request", "response")
    )
    assert (request["path"], request["stream"], request["sampling"]) == (
        RESPONSES,
        False,
        {"max_output_tokens": 7},
    )
    assert (response["prompt_tokens"], response["completion_tokens"]) == (PROMPT_TOKENS, len(WORDS))
    assert (response["finish_reason"], response["reason"]) == ("completed", None)
    assert response["output_sha256"] == hashlib.sha256(answer.content).hexdigest()


@pytest.mark.parametrize("cut", [None, 1, 7, 200])
def test_a_streamed_response_passes_as_it_is_and_is_recorded_with_its_last_event(
    gateway: Gateway, cut: int | None
) -> None:
    answer = respond(gateway, stream=True, stand_in={"cut": cut, "words": 3, "finish_reason": "length"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [event.partition("\ndata: ")[2] for event in events(answer.text)]
    kinds = [json.loads(line)["type"] for line in lines]
    assert kinds == [
        "response.created",
        "response.in_progress",
        *["response.output_text.delta"] * 3,
        "response.completed",
    ]
    response = gateway.record("response", answer.headers["x-request-id"])
    assert (response["prompt_tokens"], response["completion_tokens"]) == (PROMPT_TOKENS, 3)
    assert (response["status"], response["finish_reason"]) == (200, "max_output_tokens")
    assert response["first_byte_ms"] > 0
    assert response["output_sha256"] == hashlib.sha256(answer.content).hexdigest()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("tool", [False, True])
def test_of_high_risk_models_a_response_s_text_is_on_the_record(
    gateway: Gateway, stream: bool, tool: bool
) -> None:
    answer = respond(gateway, model="screening", stream=stream, stand_in={"tool": tool})
    record = gateway.record("response", answer.headers["x-request-id"])
    assert record["output"] == ('find_invoice \n{"number":"7"}'.replace("\n", "") if tool else "".join(WORDS))
    request = gateway.record("request", answer.headers["x-request-id"])
    assert json.loads(request["input"])["input"] == "Where is my invoice?"


def test_a_response_that_breaks_off_has_what_it_said_on_the_record(gateway: Gateway) -> None:
    answer = respond(gateway, model="screening", stream=True, stand_in={"no_end": True, "words": 2})
    *_, last = events(answer.text)
    assert json.loads(last)["error"]["code"] == "stream_cut"
    record = gateway.record("response", answer.headers["x-request-id"])
    assert (record["output"], record["reason"]) == ("".join(WORDS[:2]), "stream_cut")


@pytest.mark.parametrize("named", ["support_bot@v2", "support_bot", "another"])
def test_a_response_of_another_version_is_withheld_before_its_first_word(
    gateway: Gateway, named: str
) -> None:
    whole = respond(gateway, stand_in={"named": named})
    assert error_of(whole) == (502, "served_digest_mismatch")
    stream = respond(gateway, stream=True, stand_in={"named": named})
    [only] = events(stream.text)
    assert json.loads(only)["error"]["code"] == "served_digest_mismatch"
    for answer in (whole, stream):
        assert gateway.record("response", answer.headers["x-request-id"])["reason"] == "digest_mismatch"


@pytest.mark.parametrize(
    "members", [{"background": True}, {"previous_response_id": "resp_1"}, {"conversation": "conv_1"}]
)
def test_what_needs_answers_that_are_kept_is_refused(gateway: Gateway, members: dict[str, Any]) -> None:
    answer = respond(gateway, **members)
    assert error_of(answer) == (400, "bad_request")
    assert "answers are not kept here" in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"] == next(iter(members))
    absent: dict[str, Any] = {name: False if value is True else None for name, value in members.items()}
    assert respond(gateway, **absent).status_code == 200


def test_a_model_can_be_looked_up_by_each_of_its_names_and_has_the_time_it_was_made(gateway: Gateway) -> None:
    headers = {"authorization": f"Bearer {gateway.key()}"}
    listed = gateway.client.get("/t/team-a/v1/models", headers=headers).json()["data"]
    assert {each["id"] for each in listed} >= {
        "support_bot",
        "support_bot@production",
        "support_bot@v2",
        "screening",
    }
    for each in listed:
        for name in (each["id"], each["id"].replace("@", "%40")):
            assert gateway.client.get(f"/t/team-a/v1/models/{name}", headers=headers).json() == each
        head = gateway.client.head(f"/t/team-a/v1/models/{each['id']}", headers=headers)
        assert (head.status_code, head.content) == (200, b"")
    head = gateway.client.head("/t/team-a/v1/models", headers=headers)
    assert (head.status_code, head.content) == (200, b"")
    assert gateway.client.head("/healthz").status_code == 200


def test_a_model_that_cannot_be_asked_cannot_be_looked_up(gateway: Gateway) -> None:
    only = gateway.key(models=["support_bot"])
    for name, status, code in (
        ("nothing", 404, "model_not_found"),
        ("support_bot@previous", 404, "model_not_found"),
        ("screening", 403, "permission_denied"),
    ):
        answer = gateway.client.get(
            f"/t/team-a/v1/models/{name}", headers={"authorization": f"Bearer {only}"}
        )
        assert error_of(answer) == (status, code)
    answer = gateway.client.get(
        "/t/team-a/v1/models/idle_bot", headers={"authorization": f"Bearer {gateway.key()}"}
    )
    assert error_of(answer) == (503, "model_not_live")
    assert gateway.client.get("/t/team-a/v1/models/support_bot").status_code == 401


def test_a_model_that_cannot_embed_says_so(gateway: Gateway) -> None:
    told = {"status": 404, "body": '{"detail":"Not Found"}'}
    answer = gateway.ask(
        gateway.key(), path="/t/team-a/v1/embeddings", model="support_bot@v1", input="x", stand_in=told
    )
    assert error_of(answer) == (404, "endpoint_not_served")
    message = answer.json()["error"]["message"]
    assert message.startswith("'support_bot' cannot do what /v1/embeddings asks for. It generates text")


@pytest.mark.parametrize("path", OF_OPENAI)
def test_what_openai_serves_beside_is_refused_by_a_sentence(gateway: Gateway, path: str) -> None:
    status, code, message = refusal(gateway, "GET", path)
    assert (status, code) == (404, "endpoint_not_served")
    assert f"GET /t/team-a{path} is not served. " in message


def routes_of_vllm(package: Path) -> set[tuple[str, str]]:
    """Method and path of every route that vLLM's source declares, whatever the model and the options."""
    found = set()
    for file in package.glob("entrypoints/**/*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                path, method = node.args[0], node.func.attr.upper()
                if isinstance(path, ast.Constant) and str(path.value).startswith("/"):
                    if method in ("GET", "POST", "PUT", "DELETE"):
                        found.add((method, str(path.value)))
                    elif method in ("ADD_API_ROUTE", "WEBSOCKET", "MOUNT"):
                        found.add(("POST", str(path.value)))
    return found


@pytest.mark.engine
def test_every_route_of_vllm_is_served_or_refused_by_a_sentence(gateway: Gateway, serve_python: Path) -> None:
    [package] = serve_python.parent.parent.glob("lib/python*/site-packages/vllm")
    routes = routes_of_vllm(package)
    assert routes >= SERVED, "they are found"
    assert len(routes) > 60
    unknown = {}
    for method, path in sorted(routes - SERVED):
        status, code, message = refusal(gateway, method, re.sub(r"\{\w+\}", "x1", path))
        if (status, code) not in ((404, "endpoint_not_served"), (405, "method_not_allowed")):
            unknown[method, path] = message
    assert unknown == {}


def test_the_table_in_the_docs_names_what_is_served(gateway: Gateway) -> None:
    text = (Path(__file__).parents[3] / "docs/reference/gateway.md").read_text()
    asked = re.search(r"^\| `POST (.*?)` \|", text, re.MULTILINE)
    assert asked
    assert set(re.findall(r"/v1/[a-z/]+", asked[1])) == {path for method, path in SERVED if method == "POST"}
