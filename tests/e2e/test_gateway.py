"""The gateway before real vLLM servers: OpenAI's client and curl as they are, promotions under load.

Few tests, because every start of vLLM takes 20 s and more.
"""

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from resources.artifact_store.store import ArtifactStore
from resources.gateway.api_keys import create_key, revoke
from resources.gateway.envoy import EnvoyGateway
from resources.gateway.envoy_settings import GatewaySettings
from resources.gateway.journals import Journal
from resources.gateway.metrics import TOKEN_FILE
from resources.local.serving.local_serving import LocalServing
from resources.local.serving.watching import ServerWatch
from resources.seams.serving import Serving
from resources.waiting import wait_until
from tests.e2e.adapted_models import NAMES, QUESTIONS
from tests.e2e.test_serving import merged
from tests.hammer import KINDS, Hammer
from tests.integration.door.test_hanging_servers import give_up
from tests.integration.door.test_publishing import deploy
from tests.integration.serving.conftest import MODEL, TENANT, stop_all
from tests.servers.ports import free_port

pytestmark = pytest.mark.engine

ASKED: list[Any] = [{"role": "user", "content": QUESTIONS[0]}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}},
    },
}


class Door:
    """A gateway with one tenant, its key, and the servers behind it."""

    def __init__(self, home: Path, engines: Path) -> None:
        store = ArtifactStore(url=f"file:{home.parent / 'store'}")
        self.serving = LocalServing(home=home, engines=engines, store=store)
        settings = GatewaySettings(folder=home / "gateway", port=free_port(), metrics_port=free_port())
        self.gateway = EnvoyGateway(settings=settings)
        self.keys = Journal(settings.folder / "keys.jsonl")
        self.key_id, self.key = self._key()
        models = {MODEL: {"risk_class": "limited"}}
        line = {"tenant": TENANT, "models": models, "risk_classes": ["limited"], "limits": None, "jwt": None}
        Journal(settings.folder / "tenants.jsonl").append(line)

    def _key(self) -> tuple[str, str]:
        key, text = create_key(self.keys, tenant=TENANT, name="test", actor="a test", by="a test")
        return key.id, text

    @property
    def address(self) -> str:
        return self.gateway.address_of(TENANT)

    def record(self, kind: str, request_id: str) -> dict[str, Any]:
        [found] = [each for each in self.records(kind) if each["id"] == request_id]
        return found

    def hammer(self, *, threads_of_a_kind: int = 1) -> Hammer:
        """Asks for short answers without pause."""
        asked = {"model": MODEL, "messages": ASKED, "max_tokens": 8}
        return Hammer(self.address, self.key, asked, threads_of_a_kind=threads_of_a_kind)

    def records(self, kind: str) -> list[dict[str, Any]]:
        """What the gateway wrote down; no collector takes it away."""
        files = (self.gateway.folder / "spool").glob("*")
        lines = [line for file in files for line in file.read_text().splitlines()]
        return [each for each in map(json.loads, lines) if each["e"] == kind]

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.address, api_key=self.key, max_retries=0, timeout=60)


@pytest.fixture
def door(tmp_path: Path, engines: Path) -> Iterator[Door]:
    door = Door(tmp_path / "home", engines)
    door.gateway.start()
    door.gateway.wait_ready()
    yield door
    stop_all(door.serving)
    door.gateway.stop()


def test_openai_clients_ask_as_they_are_and_promotions_lose_no_request(door: Door, adapted: Path) -> None:
    one, two = (merged(door.serving.store, adapted, name, tool_call_parser="hermes") for name in NAMES)
    deploy(door.serving, one, log=print)
    with door.client() as client:
        _answers_whole_and_streamed(client, one.digest)
        _answers_responses(door, client)
        _refuses_what_this_server_has_beside(door)
        _takes_tools_and_structures(client)
        _answers_curl(door, one.digest)
        _says_what_is_wrong_as_openai_does(door, client)
        with door.hammer() as hammer:
            _shares_the_traffic(door.serving, one, two)
            assert _digests_by_user(client) == {one.digest, two.digest}
            _gives_all_to(door.serving, two)
            hammer.wait_for(20)
        assert hammer.failed == []
        assert {each.kind for each in hammer.answers} == set(KINDS)
        assert {each.digest for each in hammer.answers} == {one.digest, two.digest}
        assert hammer.answers[-1].digest == two.digest
        _a_cancelled_stream_frees_the_server(door, client)
        _a_stopped_engine_is_given_up(door, client)
        _a_dead_server_is_told_at_once(door, client)
        revoke(door.keys, [door.key_id], by="a test")
        with pytest.raises(openai.AuthenticationError):
            client.models.list()


def _shares_the_traffic(serving: LocalServing, one: Serving, two: Serving) -> None:
    (before,) = serving.servers.of(TENANT, MODEL)
    route = deploy(serving, (replace(one, weight=70), replace(two, weight=30)), log=print)
    assert [(b.version, b.weight) for b in route.backends] == [(one.version, 70), (two.version, 30)]
    assert before in serving.servers.of(TENANT, MODEL), "the first server goes on"


def _digests_by_user(client: openai.OpenAI) -> set[str | None]:
    options: dict[str, Any] = {"model": MODEL, "messages": ASKED, "max_tokens": 1}
    answers = (client.chat.completions.create(**options, user=str(user)) for user in range(20))
    return {answer.system_fingerprint for answer in answers}


def _gives_all_to(serving: LocalServing, version: Serving) -> None:
    """Without another start: it runs already."""
    before = serving.servers.of(TENANT, MODEL)
    deploy(serving, version, log=print)
    (left,) = serving.servers.of(TENANT, MODEL)
    assert left in before


def _answers_whole_and_streamed(client: openai.OpenAI, digest: str) -> None:
    options: dict[str, Any] = {"model": MODEL, "messages": ASKED, "max_tokens": 12, "temperature": 0}
    raw = client.chat.completions.with_raw_response.create(**options)
    whole = raw.parse()
    assert whole.model.startswith(f"{MODEL}@"), "vLLM names the version too"
    assert (raw.headers["x-llm-digest"], whole.system_fingerprint) == (digest, digest)
    assert whole.usage is not None
    events = list(client.chat.completions.create(**options, stream=True))
    assert (
        "".join(event.choices[0].delta.content or "" for event in events) == whole.choices[0].message.content
    )
    assert all(event.usage is None for event in events), "usage that nobody asked for is kept back"
    last = list(
        client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True})
    )[-1]
    assert last.usage == whole.usage
    text = client.completions.create(model=f"{MODEL}@production", prompt="Hello", max_tokens=4)
    assert text.usage is not None
    assert {model.id for model in client.models.list()} >= {MODEL, f"{MODEL}@production"}


def _answers_responses(door: Door, client: openai.OpenAI) -> None:
    """As OpenAI's own client reads them, and on the record."""
    options: dict[str, Any] = {
        "model": MODEL,
        "input": QUESTIONS[0],
        "max_output_tokens": 12,
        "temperature": 0,
    }
    raw = client.responses.with_raw_response.create(**options)
    whole = raw.parse()
    assert whole.model == f"{MODEL}@{raw.headers['x-llm-version']}"
    assert whole.output_text
    assert whole.usage is not None
    streamed = client.responses.with_raw_response.create(**options, stream=True)
    events = list(streamed.parse())
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == whole.output_text
    for answer in (raw, streamed):
        record = door.record("response", answer.headers["x-request-id"])
        counted = (record["prompt_tokens"], record["completion_tokens"])
        assert counted == (whole.usage.input_tokens, whole.usage.output_tokens)
        assert (record["status"], record["reason"]) == (200, None)
    with pytest.raises(openai.BadRequestError, match="answers are not kept here"):
        client.responses.create(**options, background=True)
    with pytest.raises(openai.NotFoundError, match="cannot do what /v1/embeddings asks for"):
        client.embeddings.create(model=MODEL, input="x")
    assert client.models.retrieve(f"{MODEL}@production").id == f"{MODEL}@production"


def _refuses_what_this_server_has_beside(door: Door) -> None:
    """Every route that the running vLLM says it has is served, or refused by a sentence."""
    (server,) = door.serving.servers.of(TENANT, MODEL)
    routes = re.findall(r"Route: (\S+), Methods: (\w+)", server.log.read_text())
    assert ("/v1/chat/completions", "POST") in routes
    served = {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/models"}
    headers = {"authorization": f"Bearer {door.key}"}
    with httpx.Client(headers=headers, trust_env=False) as client:
        for path, method in routes:
            answer = client.request(
                method, f"{door.address.removesuffix('/v1')}{path.format(response_id='r1')}"
            )
            code = None if method == "HEAD" else answer.json()["error"]["code"] if answer.is_error else None
            assert path in served or answer.status_code == 404, path
            assert path in served or code in ("endpoint_not_served", None), path


def _takes_tools_and_structures(client: openai.OpenAI) -> None:
    named: Any = {"type": "function", "function": {"name": "weather"}}
    options: dict[str, Any] = {"model": MODEL, "messages": ASKED, "tools": [WEATHER], "temperature": 0}
    called = client.chat.completions.create(**options, tool_choice=named).choices[0].message.tool_calls
    assert called is not None
    assert called[0].function.name == "weather"  # type: ignore[union-attr]
    streamed = client.chat.completions.create(**options, tool_choice=named, stream=True)
    deltas = [call for event in streamed for call in event.choices[0].delta.tool_calls or []]
    assert {call.function.name for call in deltas if call.function and call.function.name} == {"weather"}
    shape: Any = {"type": "json_schema", "json_schema": {"name": "yes", "schema": {"enum": ["yes", "no"]}}}
    answer = client.chat.completions.create(model=MODEL, messages=ASKED, response_format=shape)
    assert json.loads(answer.choices[0].message.content or "") in ("yes", "no")


def _answers_curl(door: Door, digest: str) -> None:
    body = json.dumps({"model": MODEL, "messages": ASKED, "max_tokens": 4, "stream": True})
    header = ("-H", f"Authorization: Bearer {door.key}", "-H", "Content-Type: application/json")
    by_host = f"http://{TENANT}.llm.localhost:{door.gateway.settings.port}/v1"
    for address in (door.address, by_host):
        command = ["curl", "-sN", "-i", f"{address}/chat/completions", *header, "-d", body]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert printed.startswith("HTTP/1.1 200 OK")
        assert f"x-llm-digest: {digest}" in printed
        assert printed.rstrip().endswith("data: [DONE]")


def _says_what_is_wrong_as_openai_does(door: Door, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="'unheard_of' does not exist"):
        client.chat.completions.create(model="unheard_of", messages=ASKED)
    with pytest.raises(openai.BadRequestError):  # vLLM's own refusal comes through
        client.chat.completions.create(model=MODEL, messages=ASKED, max_tokens=-1)
    with (
        openai.OpenAI(base_url=door.address, api_key="llma_no", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError, match="Incorrect API key"),
    ):
        stranger.models.list()


def _a_cancelled_stream_frees_the_server(door: Door, client: openai.OpenAI) -> None:
    (server,) = door.serving.servers.of(TENANT, MODEL)
    stream = client.chat.completions.create(
        model=MODEL, messages=ASKED, max_tokens=400, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    stream.close()
    wait_until(lambda: _in_flight(door, server.name) == 0, what="the cancelled answer's end", timeout_s=3)


def _in_flight(door: Door, server: str) -> float:
    """As Prometheus is told at the gateway's metrics address."""
    url = f"http://127.0.0.1:{door.gateway.settings.metrics_port}/metrics/vllm/{server}"
    token = (door.gateway.folder.parent / TOKEN_FILE).read_text()
    assert httpx.get(url).status_code == 401
    text = httpx.get(url, headers={"Authorization": f"Bearer {token}"}).raise_for_status().text
    names = ("vllm:num_requests_running{", "vllm:num_requests_waiting{")
    counts = [float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(names)]
    assert counts
    return sum(counts)


def _a_stopped_engine_is_given_up(door: Door, client: openai.OpenAI) -> None:
    """Its API server goes on saying that it is well."""
    (server,) = door.serving.servers.of(TENANT, MODEL)
    [engine] = [each for each in psutil.Process(server.pid).children() if "EngineCor" in each.name()]
    engine.suspend()

    def ask() -> None:
        with pytest.raises(openai.InternalServerError, match=r"can answer now"):
            client.chat.completions.create(model=MODEL, messages=ASKED)

    asking = threading.Thread(target=ask)
    asking.start()
    watch = ServerWatch(servers=door.serving.servers, stalled_s=2, question_s=2)
    with closing(watch):
        [found] = wait_until(
            lambda: list(watch.look(door.serving.running())) or None,
            what="the stopped engine",
            timeout_s=60,
            every_s=0.5,
        )
    assert door.serving.servers.ready(server)
    assert found.why.startswith("it was asked and had answered nothing for ")
    give_up(door.serving, found)
    asking.join(timeout=10)
    assert not asking.is_alive()
    assert list(client.models.list()) == []


def _a_dead_server_is_told_at_once(door: Door, client: openai.OpenAI) -> None:
    started = time.monotonic()
    for _ in range(8):
        with pytest.raises(openai.InternalServerError, match=r"cannot be reached|is live now|can answer now"):
            client.chat.completions.create(model=MODEL, messages=ASKED)
    assert time.monotonic() - started < 8
