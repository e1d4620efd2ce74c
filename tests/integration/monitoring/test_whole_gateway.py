"""What the gateway as operators run it counts of what it answers, refuses, and is left with."""

import http.client
import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_assets.gateway.collector import run
from llm_assets.installation.settings import Settings
from resources.gateway.api_keys import create_key
from resources.gateway.limits import Limits
from resources.waiting import wait_until
from tests.integration.gateway.gateways import question
from tests.integration.gateway.gateways import tenant as tenant_line
from tests.integration.gateway.whole_gateways import Deployment, WholeGateway, whole_gateway

ANSWERS = Deployment(tenant="team-a", model="support_bot")
OTHER = Deployment(tenant="team-a", model="other_bot")
LYING = "sha256:" + "f" * 64


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeGateway]:
    models = {"support_bot": "limited", "other_bot": "limited", "asleep": "limited"}
    home = tmp_path_factory.mktemp("home")
    with whole_gateway(home, [ANSWERS, OTHER]) as gateway, collecting(home):
        gateway.tenants.append(tenant_line("team-a", models))
        gateway.routes.append({"tenant": "team-a", "model": "asleep", "key": None, "backends": []})
        lying = {**OTHER.as_backend(), "digest": LYING}
        gateway.routes.append({"tenant": "team-a", "model": "other_bot", "key": "k", "backends": [lying]})
        yield gateway


@contextmanager
def collecting(home: Path) -> Iterator[None]:
    """With the collector of that state folder."""
    settings, ending = Settings(root=home, catalog=home, home=home), threading.Event()
    collector = threading.Thread(target=run, args=(settings, ending))
    collector.start()
    try:
        yield
    finally:
        ending.set()
        collector.join()


def key_of(gateway: WholeGateway, limits: Limits | None = None) -> str:
    who: dict[str, Any] = {"tenant": "team-a", "name": "ci", "actor": "ci", "by": "tests"}
    return create_key(gateway.keys, **who, limits=limits)[1]


def ask(gateway: WholeGateway, key: str, model: str = "support_bot", **given: Any) -> httpx.Response:
    url = f"http://127.0.0.1:{gateway.port}/t/team-a/v1/chat/completions"
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(url, headers=headers, json=question(model=model, **given), timeout=20)


marks = itertools.count(1)


def scraped(gateway: WholeGateway) -> str:
    """What is counted, once all is that was asked so far: a mark is asked last, and waited for."""
    number = next(marks)
    httpx.get(f"http://127.0.0.1:{gateway.port}/nowhere")

    def once_the_mark_counts() -> str | None:
        text = httpx.get(f"{gateway.metrics_url}/metrics/audit", headers=gateway.metrics_headers).text
        return text if total(text, "requests_total", reason="unknown_url") >= number else None

    return wait_until(once_the_mark_counts, what="the count of the mark", timeout_s=30, every_s=0.05)


def total(text: str, name: str, **labels: str) -> float:
    """The sum of the series of that name with these labels, as Prometheus would have it."""
    lines = [line for line in text.splitlines() if line.startswith(f"llm_{name}{{")]
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(float(line.rpartition(" ")[2]) for line in lines if all(each in line for each in wanted))


def counted(gateway: WholeGateway, name: str, **labels: str) -> float:
    return total(scraped(gateway), name, **labels)


def test_an_answer_counts_with_its_version_and_the_tokens_of_its_usage(gateway: WholeGateway) -> None:
    usage = ask(gateway, key_of(gateway)).json()["usage"]
    what = {"tenant": "team-a", "model": "support_bot", "version": "v1"}
    assert counted(gateway, "requests_total", **what, outcome="ok", status="200") == 1
    assert counted(gateway, "prompt_tokens_total", **what) == usage["prompt_tokens"]
    assert counted(gateway, "completion_tokens_total", **what) == usage["completion_tokens"]


def test_a_stream_counts_its_tokens_though_the_client_did_not_ask_for_them(gateway: WholeGateway) -> None:
    what = {"tenant": "team-a", "model": "support_bot", "version": "v1"}
    before = counted(gateway, "completion_tokens_total", **what)
    assert "usage" not in ask(gateway, key_of(gateway), stream=True).text
    assert counted(gateway, "completion_tokens_total", **what) > before


@pytest.mark.parametrize(
    ("model", "status", "labels"),
    [
        ("asleep", "503", {"model": "asleep", "outcome": "error", "reason": "model_not_live"}),
        ("other_bot", "502", {"model": "other_bot", "outcome": "error", "reason": "digest_mismatch"}),
        ("not_a_model", "404", {"model": "-", "outcome": "denied"}),
    ],
)
def test_what_has_no_answer_says_why(
    gateway: WholeGateway, model: str, status: str, labels: dict[str, str]
) -> None:
    assert ask(gateway, key_of(gateway), model).status_code == int(status)
    assert counted(gateway, "requests_total", tenant="team-a", status=status, **labels) == 1


def test_a_limit_that_is_hit_and_a_key_that_nobody_made_are_counted(gateway: WholeGateway) -> None:
    key = key_of(gateway, Limits(requests_per_minute=1))
    assert [ask(gateway, key).status_code for _ in range(3)] == [200, 429, 429]
    refused = {"tenant": "team-a", "model": "-", "reason": "requests_per_minute", "status": "429"}
    assert counted(gateway, "requests_total", **refused) == 2, "before the body that names the model"
    assert ask(gateway, "llma_aaaaaaaaaaaa_" + "x" * 43).status_code == 401
    assert counted(gateway, "requests_total", outcome="denied", reason="unknown_key", status="401") == 1


def test_a_client_makes_no_series_of_its_own(gateway: WholeGateway) -> None:
    key = key_of(gateway)
    for number in range(20):
        ask(gateway, key, f"made_up_{number}")
        url = f"http://127.0.0.1:{gateway.port}/t/made-up-{number}/v1/chat/completions"
        httpx.post(url, headers={"authorization": f"Bearer {key}"}, json=question(model="support_bot"))
    text = scraped(gateway)
    assert "made_up" not in text
    assert "made-up" not in text


def test_refusals_are_not_among_the_durations(gateway: WholeGateway) -> None:
    key = key_of(gateway, Limits(requests_per_minute=1))
    ask(gateway, key)
    name, what = "request_duration_seconds_count", {"tenant": "team-a", "model": "support_bot"}
    before = counted(gateway, name, **what)
    for _ in range(5):
        assert ask(gateway, key).status_code == 429
    assert counted(gateway, name, **what) == before


def test_a_client_that_goes_away_is_counted_once(gateway: WholeGateway) -> None:
    before = counted(gateway, "requests_total", tenant="team-a", model="support_bot")
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port)
    headers = {"authorization": f"Bearer {key_of(gateway)}", "content-type": "application/json"}
    body = json.dumps(question(model="support_bot", stream=True))
    connection.request("POST", "/t/team-a/v1/chat/completions", body, headers)
    connection.getresponse().read(10)
    connection.close()
    deadline = time.monotonic() + 10
    while counted(gateway, "requests_total", tenant="team-a", model="support_bot") == before:
        assert time.monotonic() < deadline
        httpx.get(f"http://127.0.0.1:{gateway.port}/healthz")  # as the keeper asks; finds clients that left
    assert counted(gateway, "requests_total", tenant="team-a", model="support_bot") == before + 1
