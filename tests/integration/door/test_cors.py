"""Web pages that ask from a browser: who may, and what they can read of an answer and of a refusal."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from llm_assets.gateway.listening import gateway_settings
from llm_assets.installation.settings import Settings
from resources.gateway.envoy_cors import EXPOSED
from resources.gateway.envoy_settings import GatewaySettings
from resources.gateway.errors import GatewayError
from tests.chromium import chromium
from tests.integration.gateway.gateways import created, new_key, question
from tests.integration.gateway.whole_gateways import Deployment, WholeGateway, whole_gateway

PAGE, OTHER = "https://app.example.com", "https://evil.example.com"
LIVE = (Deployment(tenant="team-a", model="support_bot"),)
CHAT = "/t/team-a/v1/chat/completions"
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-os",
}


def asked(gateway: WholeGateway) -> str:
    """A key of team-a."""
    models = {"support_bot": {"risk_class": "limited"}}
    line = {"tenant": "team-a", "models": models, "risk_classes": ["limited"], "limits": None, "jwt": None}
    gateway.tenants.append(line)
    key = new_key()
    gateway.keys.append(created(key, "team-a"))
    return key


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeGateway]:
    home = tmp_path_factory.mktemp("cors")
    with whole_gateway(home, LIVE, origins=(PAGE, "http://localhost:5173")) as running:
        yield running


@pytest.fixture(scope="module")
def key(gateway: WholeGateway) -> str:
    return asked(gateway)


@pytest.fixture
def client(gateway: WholeGateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.envoy.url, trust_env=False) as client:
        yield client


def test_a_page_that_may_ask_is_told_so_and_no_request_is_on_the_record(
    client: httpx.Client, gateway: WholeGateway
) -> None:
    answer = client.options(CHAT, headers=PREFLIGHT | {"origin": PAGE})
    assert answer.status_code == 200
    assert answer.content == b""
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "authorization, *"
    assert "access-control-allow-credentials" not in answer.headers
    assert answer.headers["vary"] == "origin"
    assert [file.read_text() for file in (gateway.folder / "spool").glob("*")] == []


@pytest.mark.parametrize("origin", [OTHER, "null", f"{PAGE}.evil.example.com", "https://appXexample.com"])
def test_another_page_is_not(client: httpx.Client, key: str, origin: str) -> None:
    answer = client.options(CHAT, headers=PREFLIGHT | {"origin": origin})
    assert answer.status_code == 405
    assert "access-control-allow-origin" not in answer.headers
    told = client.post(CHAT, json=question(), headers={"origin": origin, "authorization": f"Bearer {key}"})
    assert told.status_code == 200, "it is the browser that keeps the answer from the page"
    assert "access-control-allow-origin" not in told.headers
    assert told.headers["vary"] == "origin", "or a cache would give this to the page that may"


def test_an_answer_and_each_kind_of_refusal_can_be_read_by_the_page(client: httpx.Client, key: str) -> None:
    bearer = {"authorization": f"Bearer {key}"}
    asked = [
        (200, client.post(CHAT, json=question(), headers=bearer | {"origin": PAGE})),
        (200, client.post(CHAT, json=question(stream=True), headers=bearer | {"origin": PAGE})),
        (200, client.get("/t/team-a/v1/models", headers=bearer | {"origin": PAGE})),
        (400, client.post(CHAT, content="{", headers=bearer | {"origin": PAGE})),
        (401, client.post(CHAT, json=question(), headers={"origin": PAGE})),
        (
            401,
            client.post(CHAT, json=question(), headers={"origin": PAGE, "authorization": "Bearer eyJ.e.e"}),
        ),
        (404, client.post("/t/team-a/v1/x", headers=bearer | {"origin": PAGE})),
        (413, client.post(CHAT, content=b" " * 9_000_000, headers=bearer | {"origin": PAGE})),
        (
            500,
            client.post(
                CHAT, json=question(stand_in={"status": 500, "body": "{}"}), headers=bearer | {"origin": PAGE}
            ),
        ),
    ]
    for status, answer in asked:
        assert answer.status_code == status, answer.text
        assert answer.headers["access-control-allow-origin"] == PAGE, status
        assert answer.headers["access-control-expose-headers"].split(", ") == list(EXPOSED)
        assert "access-control-allow-credentials" not in answer.headers
        assert answer.headers["vary"] == "origin"


def test_what_an_answer_has_in_its_receipt_is_exposed(client: httpx.Client, key: str) -> None:
    answer = client.post(CHAT, json=question(), headers={"authorization": f"Bearer {key}"})
    told = {name for name in answer.headers if name.startswith("x-")}
    assert told - {"x-ratelimit-limit-requests"} <= set(EXPOSED)
    assert {"x-llm-digest", "x-request-id"} <= told


ASK = """
const [url, key, done] = arguments;
const asked = {method: "POST", body: JSON.stringify({model: "support_bot", messages: []}),
  headers: {"content-type": "application/json", "x-stainless-lang": "js", authorization: "Bearer " + key}};
fetch(url, asked)
  .then(async answer => done([answer.status, answer.headers.get("x-llm-digest"), await answer.json()]))
  .catch(fault => done(["kept from the page", String(fault), null]));
"""


class Page(BaseHTTPRequestHandler):
    """An empty page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def page() -> Iterator[str]:
    """The origin of a page that is served here."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


@pytest.mark.browser
def test_a_browser_gives_a_page_answers_and_refusals_and_gives_another_page_neither(tmp_path: Path) -> None:
    with (
        page() as allowed,
        page() as other,
        whole_gateway(tmp_path / "home", LIVE, origins=(allowed,)) as gateway,
        chromium(tmp_path / "profile") as browser,
    ):
        key, url = asked(gateway), f"{gateway.envoy.url}{CHAT}"
        browser.get(allowed)
        answered = browser.execute_async_script(ASK, url, key)
        refused = browser.execute_async_script(ASK, url, new_key())
        browser.get(other)
        kept = browser.execute_async_script(ASK, url, key)
    assert answered[:2] == [200, LIVE[0].digest]
    assert answered[2]["choices"]
    assert (refused[0], refused[2]["error"]["code"]) == (401, "invalid_api_key")
    assert kept[0] == "kept from the page"


def test_without_the_setting_no_page_may_ask(tmp_path: Path) -> None:
    with whole_gateway(tmp_path, LIVE) as gateway:
        key = asked(gateway)
        with httpx.Client(base_url=gateway.envoy.url, trust_env=False) as client:
            preflight = client.options(CHAT, headers=PREFLIGHT | {"origin": PAGE})
            headers = {"origin": PAGE, "authorization": f"Bearer {key}"}
            answer = client.post(CHAT, json=question(), headers=headers)
    assert preflight.status_code == 405
    assert answer.status_code == 200
    for each in (preflight, answer):
        assert not [name for name in each.headers if name.startswith("access-control")]


def test_every_page_may_ask_where_the_operator_says_so(tmp_path: Path) -> None:
    with whole_gateway(tmp_path, LIVE, origins=("*",)) as gateway, httpx.Client(trust_env=False) as client:
        answer = client.options(f"{gateway.envoy.url}{CHAT}", headers=PREFLIGHT | {"origin": OTHER})
    assert answer.headers["access-control-allow-origin"] == OTHER
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    ["app.example.com", "https://app.example.com/", "https://app.example.com/chat", "https://*.x.y", "null"],
)
def test_what_is_no_origin_is_refused_with_the_form_of_one(tmp_path: Path, origin: str) -> None:
    with pytest.raises(GatewayError, match=r"LLM_ASSETS_GATEWAY_ORIGINS.*https://app.example.com"):
        GatewaySettings(folder=tmp_path, port=8080, origins=(origin,))


def test_the_setting_reaches_the_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {"root": tmp_path, "catalog": tmp_path, "home": tmp_path}
    assert gateway_settings(Settings(**folders)).origins == ()
    monkeypatch.setenv("LLM_ASSETS_GATEWAY_ORIGINS", " https://App.example.com, http://localhost:5173 ,")
    origins = gateway_settings(Settings(**folders)).origins
    assert origins == ("https://app.example.com", "http://localhost:5173")
