"""Every error that docs/reference/gateway.md names, provoked in a whole gateway; and no other."""

import json
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import pytest

from resources.gateway.envoy_http import ANY_OTHER, ERRORS
from resources.gateway.envoy_settings import MIB
from resources.waiting import wait_until
from tests.conftest import ROOT
from tests.integration.gateway.gateways import created, new_key, question
from tests.integration.gateway.whole_gateways import Deployment, WholeGateway, whole_gateway

DOCS = (ROOT / "docs" / "reference" / "gateway.md").read_text()
DOCUMENTED = {
    (int(status), code) for status, code in re.findall(r"^\| (\d{3}) \| `(\w+)` \|", DOCS, re.MULTILINE)
}
MODELS = {"support_bot": "limited", "idle_bot": "minimal"}
CHAT = "/t/team-a/v1/chat/completions"


class Asked:
    """A gateway and a client of it, with a key of team-a."""

    def __init__(self, gateway: WholeGateway, client: httpx.Client) -> None:
        self.gateway, self.client = gateway, client
        self.key = self.new_key()

    def new_key(self, **more: Any) -> str:
        key = new_key()
        self.gateway.keys.append(created(key, "team-a", **more))
        return key

    def ask(
        self, path: str = CHAT, *, key: str | None = None, method: str = "POST", **request: Any
    ) -> httpx.Response:
        headers = {"authorization": f"Bearer {key or self.key}"} | request.pop("headers", {})
        body: dict[str, Any] = (
            {} if "content" in request or method == "GET" else {"json": question(**request.pop("body", {}))}
        )
        return self.client.request(method, path, headers=headers, **body, **request)

    def behave(self, **how: Any) -> httpx.Response:
        return self.ask(body={"stand_in": how})


def limited(asked: Asked) -> httpx.Response:
    key = asked.new_key(limits={"requests_per_minute": 1})
    assert asked.ask(key=key).status_code == 200
    return asked.ask(key=key)


def slow(asked: Asked) -> httpx.Response:
    """A request whose body does not come."""
    lines = [
        f"POST {CHAT} HTTP/1.1",
        "host: a",
        f"authorization: Bearer {asked.key}",
        "content-length: 9",
        "",
        "",
    ]
    with socket.create_connection(("127.0.0.1", asked.gateway.port), timeout=10) as client:
        client.sendall("\r\n".join(lines).encode())
        with HTTPResponse(client) as answer:
            answer.begin()
            return httpx.Response(answer.status, headers=dict(answer.headers), content=answer.read())


OTHERS = tuple(f"team-{letter}" for letter in "bcde")
"""Who have all the room for bodies together: a tenant has a fourth of it at most."""


def overloaded(asked: Asked) -> httpx.Response:
    """A request while others have the room for bodies, of which they send nothing."""
    with ExitStack() as stack:
        for tenant in OTHERS * 2:
            key = new_key()
            asked.gateway.keys.append(created(key, tenant))
            lines = [
                f"POST /t/{tenant}/v1/chat/completions HTTP/1.1",
                "host: a",
                f"authorization: Bearer {key}",
                f"content-length: {8 * MIB}",
            ]
            client = stack.enter_context(socket.create_connection(("127.0.0.1", asked.gateway.port)))
            client.sendall("\r\n".join([*lines, "", ""]).encode())
        wait_until(
            lambda: asked.ask(content=b" " * MIB).status_code == 503, what="the others' requests", timeout_s=5
        )
        assert asked.ask().status_code == 200, "a small request has room"
        return asked.ask(content=b" " * MIB)


@contextmanager
def damaged(file: Path) -> Iterator[None]:
    before = file.read_bytes()
    file.write_bytes(before + b"nonsense\n")
    try:
        yield
    finally:
        file.write_bytes(before)


def failing(asked: Asked) -> httpx.Response:
    with damaged(asked.gateway.routes.path):
        return asked.ask()


def unrecorded(asked: Asked) -> httpx.Response:
    spool = asked.gateway.folder / "spool"
    shutil.rmtree(spool)
    spool.touch()
    try:
        time.sleep(1.1)  # after which the filter looks whether its file is still there
        return asked.ask()
    finally:
        spool.unlink()
        spool.mkdir()


Provoke = Callable[[Asked], httpx.Response]
PROVOKED: dict[tuple[int, str], Provoke] = {
    (400, "bad_request"): lambda asked: asked.ask(content=b"{"),
    (401, "invalid_api_key"): lambda asked: asked.ask(key=new_key()),
    (403, "permission_denied"): lambda asked: asked.ask(key=asked.new_key(models=["idle_bot"])),
    (404, "model_not_found"): lambda asked: asked.ask(body={"model": "nothing"}),
    (404, "unknown_url"): lambda asked: asked.ask("/t/team-a/v1/nothing"),
    (404, "endpoint_not_served"): lambda asked: asked.ask("/t/team-a/v1/audio/speech"),
    (405, "method_not_allowed"): lambda asked: asked.ask(method="GET"),
    (408, "request_timeout"): slow,
    (413, "request_too_large"): lambda asked: asked.ask(content=b" " * 9_000_000),
    (415, "unsupported_media_type"): lambda asked: asked.ask(headers={"content-encoding": "gzip"}),
    (429, "rate_limit_exceeded"): limited,
    (431, "headers_too_large"): lambda asked: asked.ask(headers={"x-long": "x" * 40_000}),
    (500, "internal_error"): failing,
    (502, "served_digest_mismatch"): lambda asked: asked.behave(digest="sha256:other"),
    (502, "answer_too_large"): lambda asked: asked.behave(words=2_500_000),
    (502, "bad_gateway"): lambda asked: asked.behave(body="no JSON"),
    (503, "model_not_live"): lambda asked: asked.ask(body={"model": "idle_bot"}),
    (503, "overloaded"): overloaded,
    (503, "audit_unavailable"): unrecorded,
    (504, "timeout"): lambda asked: asked.behave(delay_s=3),
}
TOLD = {405: "allow", 429: "retry-after", 503: "retry-after"}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    home = tmp_path_factory.mktemp("errors")
    live = (Deployment(tenant="team-a", model="support_bot"),)
    with (
        whole_gateway(home, live, request_s=1, answer_idle_s=1, max_heap_bytes=128 * MIB) as gateway,
        httpx.Client(base_url=gateway.envoy.url, trust_env=False, timeout=20) as client,
    ):
        classes = {model: {"risk_class": risk_class} for model, risk_class in MODELS.items()}
        line = {
            "tenant": "team-a",
            "models": classes,
            "risk_classes": [*MODELS.values()],
            "limits": None,
            "jwt": None,
        }
        gateway.tenants.append(*({**line, "tenant": name} for name in ("team-a", *OTHERS)))
        yield Asked(gateway, client)


def test_every_documented_error_is_provoked_here() -> None:
    assert PROVOKED.keys() == DOCUMENTED


@pytest.mark.parametrize(("status", "code"), PROVOKED)
def test_a_documented_error_comes_as_it_is_documented(asked: Asked, status: int, code: str) -> None:
    answer = PROVOKED[status, code](asked)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), error
    assert set(error) == {"message", "type", "param", "code"}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert status not in TOLD or answer.headers[TOLD[status]]
    assert asked.ask().status_code == 200, "the next one is answered"


def test_a_stream_that_the_server_breaks_off_ends_with_the_documented_error(asked: Asked) -> None:
    answer = asked.ask(body={"stream": True, "stand_in": {"no_end": True}})
    *_, last = [event for event in answer.text.split("\n\n") if event]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "stream_cut"
    assert "`stream_cut`" in DOCS


def test_no_code_is_left_out_of_the_docs() -> None:
    folder = ROOT / "deployments" / "gateway"
    lua = "".join(file.read_text() for file in folder.glob("*.lua"))
    table = re.search(r"local CODES = \{(.*?)\n\}", (folder / "errors.lua").read_text(), re.DOTALL)
    assert table
    codes = set(re.findall(r'\bcode = "(\w+)"', lua)) | set(re.findall(r'= "(\w+)"', table[1]))
    codes |= {code for _, code, _ in ERRORS.values()}
    assert codes - {"stream_cut"} == {code for _, code in DOCUMENTED}
    assert ANY_OTHER[1] == "internal_error"
