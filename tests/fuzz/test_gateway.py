"""The gateway's Lua in a real Envoy: any request, any answer of a model's server, any JSON.

Python's own json is the reference for the two readers of JSON.
"""

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.soups import JSON_PIECES, changed, reads, soup
from tests.integration.gateway.conftest import prepared, started
from tests.integration.gateway.gateways import CHAT, DIGESTS, LUA, Gateway, bootstrap, envoy_of, question
from tests.integration.gateway.test_lua_modules import Lua
from tests.servers.ports import free_port

SCRIPT = f"""
package.path = "{LUA}/?.lua;" .. package.path
local scan, json = require("json_scan"), require("json")
local wanted = {{ model = true, stream = true, user = true }}
local function encoded(value)
  if type(value) == "string" then return json.string(value) end
  if type(value) == "number" then return string.format("%.17g", value) end
  if type(value) ~= "table" then return tostring(value) end
  local parts = {{}}
  for name, each in pairs(value) do
    parts[#parts + 1] = json.string(tostring(name)) .. ":" .. encoded(each)
  end
  return "{{" .. table.concat(parts, ",") .. "}}"
end
local operations = {{
  valid = function(text) return tostring(scan.valid(text)) end,
  decode = function(text) return encoded(json.decode(text)) end,
  members = function(text)
    local firsts, lasts = scan.members(text, 1, #text, wanted, json.name)
    if not firsts then error(lasts, 0) end
    local parts = {{}}
    for name, at in pairs(firsts) do parts[#parts + 1] = '"' .. name .. '":' .. text:sub(at, lasts[name]) end
    return "{{" .. table.concat(parts, ",") .. "}}"
  end,
}}
function envoy_on_request(handle)
  local body = handle:body()
  local text = body and body:getBytes(0, body:length()) or ""
  local well, said = pcall(operations[handle:headers():get(":path"):sub(2)], text)
  handle:respond({{ [":status"] = well and "200" or "400" }}, tostring(said))
end
"""
MOST_DEPTH = 100
"""The gateway refuses what is nested further; Python does not."""

VALID_BODY = json.dumps(question(user="jan", stream=True, max_tokens=8)).encode()
TEXTS = soup(JSON_PIECES) | changed(VALID_BODY, JSON_PIECES) | st.binary(max_size=40)

PATHS = st.sampled_from(
    [CHAT, "/t/team-a/v1/completions", "/t/team-a/v1/responses", "/t/team-a/v1/embeddings"]
)
ODD_PARTS = (
    "/",
    "t",
    "team-a",
    "team-b",
    "v1",
    "chat",
    "completions",
    "models",
    "%2e%2e",
    "..",
    "%00",
    "?a=b",
)
ODD_PATHS = st.lists(st.sampled_from(ODD_PARTS), max_size=7).map(lambda parts: "/" + "/".join(parts))
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=30)
NAMES = (
    *("x-llm-subject", "x-request-id", "x-llm-session", "content-type", "accept", "host", "expect", "cookie"),
    *("traceparent", "x-forwarded-for", "origin", "te", "x-envoy-original-path", "x-llm-tenant", "range"),
)
HEADERS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4)

CHUNK = {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "Hi "}}]}
LAST = CHUNK | {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
LAST |= {"system_fingerprint": DIGESTS["d1"]}
WHOLE = LAST | {
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"content": "Hi", "tool_calls": []}}],
}
OUTPUT = [{"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}, {"type": "function_call"}]
RESPONSE: dict[str, Any] = {
    "object": "response",
    "model": "screening@v1",
    "status": "completed",
    "output": OUTPUT,
}
RESPONSE |= {"usage": {"input_tokens": 3, "output_tokens": 1}}
SAID: tuple[Any, ...] = (CHUNK, LAST, WHOLE, {"error": {"message": "no"}}, [], 1, RESPONSE)
SAID += tuple(
    {"type": kind, "response": RESPONSE, "delta": "Hi", "output_index": 0}
    for kind in ("response.created", "response.output_text.delta", "response.completed", "response.failed")
)
EVENTS = tuple(json.dumps(each).encode() for each in SAID)
"""What a model's server says of a chat, a completion and a response, whole and in pieces."""

BREAKS = (
    b"\n",
    b"\n\n",
    b"\r\n\r\n",
    b"\r",
    b"data: ",
    b"data:\n",
    b": comment\n\n",
    b"event: x\n",
    b"id: 1\n",
    b"\x00",
)
ENDS = (b"data: [DONE]\n\n", b"data: [DONE]", b"data: [DONE]\r\n\r\n")
ODD = (
    "null",
    "7",
    '"a"',
    "[]",
    "[[1]]",
    "{}",
    '[{"a": 1}]',
    "-1",
    "1" + 400 * "0",
    "0.5",
    '"\\ud800"',
    "true",
)
EVENT: st.SearchStrategy[bytes] = st.sampled_from(EVENTS).flatmap(
    lambda event: changed_values(event) | st.just(event)  # type: ignore[has-type]  # defined below
)
EVENT_OR_PART = (
    EVENT.map(lambda event: b"data: " + event + b"\n\n")
    | EVENT
    | st.sampled_from(BREAKS + ENDS)
    | st.binary(max_size=4)
)


@st.composite
def changed_values(draw: st.DrawFn, event: bytes) -> bytes:
    """The event with some values of another kind: it stays JSON, and is no longer what was expected."""
    said = json.loads(event)
    for _ in range(draw(st.integers(1, 3))):
        within = said
        while isinstance(within, dict | list) and within:
            name = draw(st.sampled_from(sorted(within) if isinstance(within, dict) else range(len(within))))
            if draw(st.booleans()) or not isinstance(within[name], dict | list):
                within[name] = json.loads(draw(st.sampled_from(ODD)))
                break
            within = within[name]
    return json.dumps(said).encode()


@pytest.fixture(scope="module")
def lua(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lua]:
    """Runs a reader of JSON on a text; b"" where it refuses."""
    home, port = tmp_path_factory.mktemp("lua"), free_port()
    configuration = bootstrap(port, SCRIPT, {"none": free_port()}, home)
    with envoy_of(home, configuration, port), httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:

        def run(operation: str, text: bytes) -> bytes:
            answer = client.post(operation, content=text)
            assert answer.status_code in (200, 400), answer.text
            return answer.content if answer.status_code == 200 else b""

        yield run


@given(text=TEXTS)
def test_what_is_json_is_decided_as_python_decides_it(lua: Lua, text: bytes) -> None:
    valid, _ = reads(text)
    if not valid or depth(text) <= MOST_DEPTH:
        assert lua("/valid", text) == str(valid).lower().encode()


@given(text=TEXTS)
def test_members_that_are_found_are_those_that_python_finds(lua: Lua, text: bytes) -> None:
    """Names that come twice are set apart: Python takes the last of them."""
    valid, value = reads(text)
    found = lua("/members", text)
    if valid and isinstance(value, dict) and once(text) and depth(text) <= MOST_DEPTH:
        assert json.loads(found) == {
            name: value[name] for name in ("model", "stream", "user") if name in value
        }


@given(text=TEXTS)
def test_an_object_in_a_journal_is_decoded_as_python_decodes_it_or_refused(lua: Lua, text: bytes) -> None:
    valid, value = reads(text)
    read = lua("/decode", text)
    if valid and isinstance(value, dict) and once(text) and read:
        assert set(json.loads(read)) == {name for name, each in value.items() if each is not None}


def depth(text: bytes) -> int:
    """At most as deep as that: brackets within strings count too."""
    return text.count(b"{") + text.count(b"[")


def once(text: bytes) -> bool:
    """Whether each name of the object, and of those in it, comes once."""
    names: list[list[str]] = []
    json.loads(text, object_pairs_hook=lambda pairs: names.append([name for name, _ in pairs]))
    return all(len(set(each)) == len(each) for each in names)


class AnyServer:
    """A model's server whose next answer is whatever bytes it is given, in whatever pieces."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with client, suppress(OSError):
                    self._answer(client)

    def _answer(self, client: socket.socket) -> None:
        client.settimeout(5)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        seen = b""
        while b"\r\n\r\n" not in seen:
            seen += client.recv(65536)
        head, _, body = seen.partition(b"\r\n\r\n")
        length = next(
            (
                int(line.split(b":")[1])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length")
            ),
            0,
        )
        while len(body) < length:
            body += client.recv(65536)
        for piece in self.pieces:
            client.sendall(piece)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


@pytest.fixture(scope="module")
def server() -> Iterator[AnyServer]:
    made = AnyServer()
    yield made
    made.close()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, server: AnyServer) -> Iterator[Gateway]:
    home = prepared(tmp_path_factory.mktemp("fuzzed"))
    with started(home, {"d1": server.port, "d2": server.port}) as running:
        yield running
        assert "internal_error" not in json.dumps(running.records())


@pytest.fixture(scope="module")
def key(gateway: Gateway) -> str:
    return gateway.key()


@contextmanager
def answered(gateway: Gateway, request: bytes) -> Iterator[tuple[HTTPResponse, bytes]]:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as client:
        client.sendall(request)
        with HTTPResponse(client) as answer:
            answer.begin()
            body = b""
            with suppress(HTTPException):  # a stream that the gateway breaks off
                body = answer.read()
            yield answer, body


def last_response(gateway: Gateway) -> dict[str, Any]:
    """The newest: requests come one after the other here, and the whole of a night's spool is long."""
    newest = max((gateway.folder / "spool").glob("*.jsonl"))
    return next(
        each
        for each in map(json.loads, reversed(newest.read_bytes().splitlines()))
        if each["e"] == "response"
    )


@given(
    method=st.sampled_from(["POST", "POST", "POST", "GET", "HEAD", "DELETE", "PATCH", "OPTIONS", "BREW"]),
    path=PATHS | ODD_PATHS,
    headers=HEADERS,
    body=TEXTS,
)
def test_every_request_has_an_answer_that_is_no_failure_of_the_gateway(
    gateway: Gateway,
    server: AnyServer,
    key: str,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
) -> None:
    server.pieces = [b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"]
    given_ = {
        "host": "localhost",
        "authorization": f"Bearer {key}",
        "content-type": "application/json",
    } | headers
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given_.items())]
    lines += [f"content-length: {len(body)}", "connection: close", "", ""]
    with answered(gateway, "\r\n".join(lines).encode("latin-1") + body) as (answer, content):
        assert answer.status != 500, content
        if answer.getheader("x-request-id") and answer.status >= 400 and method != "HEAD":
            assert set(json.loads(content)["error"]) == {"message", "type", "param", "code"}


@given(
    path=PATHS,
    model=st.sampled_from(["support_bot@v1", "screening@v1"]),
    pieces=st.lists(EVENT_OR_PART, max_size=10),
    cuts=st.lists(st.integers(1, 600), max_size=4),
    stream=st.booleans(),
    kind=st.sampled_from(["text/event-stream", "application/json", "text/plain"]),
    status=st.sampled_from([200, 200, 200, 404, 500]),
)
def test_whatever_a_model_s_server_sends_the_client_gets_what_the_record_says(
    gateway: Gateway,
    server: AnyServer,
    key: str,
    path: str,
    model: str,
    pieces: list[bytes],
    cuts: list[int],
    stream: bool,
    kind: str,
    status: int,
) -> None:
    text = b"".join(pieces) or b"\n"  # Envoy shows a filter no body where there is none
    lines = [
        f"HTTP/1.1 {status} OK",
        f"content-type: {kind}",
        f"content-length: {len(text)}",
        "connection: close",
    ]
    head = "\r\n".join([*lines, "", ""])
    places = [0, *sorted(cuts), len(text)]
    server.pieces = [head.encode(), *(text[a:b] for a, b in pairwise(places))]
    body = json.dumps(question(model=model, stream=stream, input="Hi", prompt="Hi")).encode()
    lines = [f"POST {path} HTTP/1.1", "host: localhost", f"authorization: Bearer {key}", "connection: close"]
    lines += ["content-type: application/json", f"content-length: {len(body)}", "", ""]
    with answered(gateway, "\r\n".join(lines).encode() + body) as (answer, content):
        record = last_response(gateway)
        assert record["id"] == answer.getheader("x-request-id")
        assert record["reason"] != "internal_error"
        assert answer.status in (200, 502, 503, status), content
        if answer.status == 200:
            assert record["output_sha256"] == hashlib.sha256(content).hexdigest()
            streams = kind == "text/event-stream" and "responses" not in path
            assert not streams or b'"error"' in content or content.rstrip().endswith(b"data: [DONE]")
        else:
            assert set(json.loads(content)["error"]) >= {"message"}
