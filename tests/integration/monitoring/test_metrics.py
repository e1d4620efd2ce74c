"""What is counted of requests, and the door to it."""

import shutil
import subprocess
from typing import Any

import httpx
import pytest

from resources.audit.joining import Exchange
from resources.gateway.collector_metrics import CollectorMetrics
from resources.gateway.metrics import TOKEN_FILE
from resources.gateway.request_metrics import SECONDS
from resources.gateway.shards import HEADER
from tests.integration.monitoring.conftest import MakeDoor, MetricsDoor, series, series_in
from tests.unit.audit.spooling import request_event

WHAT = {"model": "support_bot", "version": "v1"}
OK = {**WHAT, "outcome": "ok", "reason": "", "status": "200"}
TENANTS = 500
SERIES_A_TENANT = 3 + 2 * (len(SECONDS) + 3)  # two histograms: buckets, +Inf, sum, count


def test_a_request_is_counted_with_who_what_and_how_it_ended(door: MetricsDoor) -> None:
    for _ in range(3):
        door.ask("counted")
    assert door.series()[series("llm_requests_total", tenant="counted", **OK)] == 3


def test_tokens_add_up_and_times_fall_into_buckets(door: MetricsDoor) -> None:
    door.ask("tokens", prompt_tokens=12, completion_tokens=30, first_byte_ms=17, ms=170, stream=True)
    door.ask("tokens", prompt_tokens=8, completion_tokens=5, first_byte_ms=40, ms=90, stream=True)
    door.ask("tokens", prompt_tokens=None, completion_tokens=None, first_byte_ms=600, ms=600)
    found = door.series()

    def value(name: str, **labels: str) -> float:
        return found[series(f"llm_{name}", tenant="tokens", **WHAT, **labels)]

    assert (value("prompt_tokens_total"), value("completion_tokens_total")) == (20, 35)
    assert [value("first_byte_seconds_bucket", le=bound) for bound in ("0.01", "0.025", "0.05")] == [0, 1, 2]
    assert value("first_byte_seconds_count") == 2  # that of a whole answer is its end
    durations = [value("request_duration_seconds_bucket", le=bound) for bound in ("0.1", "0.25", "1.0")]
    assert durations == [1, 2, 3]


@pytest.mark.parametrize(
    ("said", "counted_as"),
    [
        (
            {"model": "support_bot", "status": 429, "reason": "requests_per_minute"},
            {"model": "support_bot", "outcome": "denied"},
        ),
        (
            {"model": "asleep", "status": 503, "reason": "model_not_live"},
            {"model": "asleep", "outcome": "error"},
        ),
        ({"requested": "made_up", "status": 404, "reason": "model"}, {"model": "-", "outcome": "denied"}),
        ({"tenant": None, "status": 401, "reason": "no_key"}, {"tenant": "-", "outcome": "denied"}),
    ],
)
def test_a_refusal_is_counted_and_does_not_pass_for_a_fast_answer(
    make_door: MakeDoor, said: dict[str, Any], counted_as: dict[str, str]
) -> None:
    door = make_door()
    door.refuse(**said)
    labels = {"tenant": "team-a", "model": "-", "version": "-", "reason": said["reason"]}
    labels |= {"status": str(said["status"]), **counted_as}
    assert door.series() == {series("llm_requests_total", **labels): 1}


@pytest.mark.parametrize(
    ("end", "outcome", "durations"),
    [
        ({"e": "aborted", "at": 1_763_000_002.5, "first_byte_ms": None}, "aborted", 1),
        (None, "interrupted", 0),
    ],
)
def test_a_request_without_an_answer_is_counted_as_what_became_of_it(
    end: dict[str, object] | None, outcome: str, durations: int
) -> None:
    counted = CollectorMetrics()
    request = request_event("team-a", at=1_763_000_000.0, version="v1")
    counted.requests.count(Exchange(request, end and {"id": request["id"], **end}, ()))
    found, what = series_in(counted.text()), {"tenant": "team-a", **WHAT}
    assert found[series("llm_requests_total", **what, outcome=outcome, reason="", status="0")] == 1
    assert found[series("llm_request_duration_seconds_count", **what)] == durations


def test_what_no_gateway_writes_is_not_counted() -> None:
    counted = CollectorMetrics()
    counted.requests.count(Exchange(None, None, ()))
    counted.requests.count(Exchange(None, {"e": "response", "id": "of no request"}, ()))
    assert series_in(counted.text()) == {}


@pytest.mark.prometheus
def test_the_metrics_pass_promtools_lint(door: MetricsDoor) -> None:
    assert shutil.which("promtool") is not None, "promtool is missing: apt-get install prometheus"
    door.ask("linted", stream=True)
    door.refuse("linted", status=401, reason="expired")
    text = httpx.get(f"{door.url}/metrics/audit", headers=door.headers).text
    check = ["promtool", "check", "metrics"]
    done = subprocess.run(check, input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/metrics"),
        ("GET", "/metrics?format=json"),
        ("GET", "/metrics/"),
        ("POST", "/metrics/audit"),
        ("GET", "/metrics/audit?name[]=x"),
        ("GET", "/metrics/audit/../../admin.sock"),
        ("GET", "/stats/prometheus"),
        ("GET", "/config_dump"),
        ("POST", "/quitquitquit"),
        ("GET", "/metrics/../config_dump"),
        ("GET", "/"),
        ("GET", "/metrics/vllm/"),
        ("GET", "/metrics/vllm/vllm--1/"),
        ("GET", "/metrics/vllm/vllm--1?x"),
        ("GET", "/metrics/vllm/vllm--1/v1/models"),
        ("GET", "/metrics/vllm/../invocations"),
        ("POST", "/metrics/vllm/vllm--1"),
    ],
)
def test_the_metrics_address_has_nothing_else_and_nothing_at_all_without_the_token(
    door: MetricsDoor, method: str, path: str
) -> None:
    for headers, status in ((door.headers, httpx.codes.NOT_FOUND), ({}, httpx.codes.UNAUTHORIZED)):
        request = httpx.Request(method, door.url, headers=headers, extensions={"target": path.encode()})
        with httpx.Client() as client:
            assert client.send(request).status_code == status


METRICS_PATHS = ("/metrics", "/metrics/audit", "/metrics/vllm/vllm--1")
NO_TOKENS = (
    None,
    "",
    "Bearer",
    "Bearer ",
    "Bearer x",
    "Basic {token}",
    "{token}",
    "Bearer {token}x",
    "Bearer x{token}",
)


@pytest.mark.parametrize("path", METRICS_PATHS)
@pytest.mark.parametrize("sent", NO_TOKENS)
def test_metrics_are_for_whoever_has_the_token(door: MetricsDoor, path: str, sent: str | None) -> None:
    token = door.headers["authorization"].removeprefix("Bearer ")
    headers = {HEADER: "admin"} | (
        {} if sent is None else {"authorization": sent.format(token=token).strip()}
    )
    answer = httpx.get(f"{door.url}{path}", headers=headers)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


def test_a_new_token_counts_at_once_and_without_a_file_there_is_none(make_door: MakeDoor) -> None:
    door = make_door()
    before, file = door.headers, door.home / TOKEN_FILE

    def status(headers: dict[str, str]) -> int:
        return httpx.get(f"{door.url}/metrics", headers=headers).status_code

    assert status(before) == 200
    file.write_text("another\n")
    assert (status(before), status({"authorization": "bearer another"})) == (401, 200)
    file.write_text("\n")
    assert status({"authorization": "Bearer"}) == 401
    file.unlink()
    assert (status(before), status({"authorization": "Bearer"})) == (401, 401)


def test_where_the_filter_fails_nothing_is_shown(make_door: MakeDoor) -> None:
    door = make_door()
    headers = door.headers
    (door.home / TOKEN_FILE).unlink()
    (door.home / TOKEN_FILE).mkdir()  # reading a folder is an error
    assert httpx.get(f"{door.url}/metrics", headers=headers).status_code in (401, 404, 503)


def test_series_are_made_only_for_tenants_that_were_asked(make_door: MakeDoor) -> None:
    door = make_door()
    assert door.series() == {}
    for number in range(TENANTS):
        door.ask(f"tenant-{number}", stream=True)
    assert len(door.series()) == TENANTS * SERIES_A_TENANT
