"""What the gateway counts, as a real Envoy shows it."""

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from resources.gateway import metrics
from resources.gateway.collector_metrics import collector_metrics, write_collector_metrics
from tests.unit.monitoring.conftest import FLUSH_S, MakeGateway, MeteredGateway

OK = {"model": "support_bot", "version": "v1", "outcome": "ok", "reason": "-"}
WHAT = 'model="support_bot",version="v1"'
TENANTS = 500
SERIES_A_TENANT = 3 + 2 * (len(metrics.DURATIONS_MS) + 3)  # two histograms: buckets, +Inf, sum, count


class Backend(BaseHTTPRequestHandler):
    """Answers `{}`."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def backend() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def gateway(make_gateway: MakeGateway, backend: int) -> MeteredGateway:
    return make_gateway(backend)


def test_a_request_is_counted_with_who_what_and_how_it_ended(gateway: MeteredGateway) -> None:
    for _ in range(3):
        assert gateway.ask(tenant="counted", **OK).status_code == httpx.codes.OK
    labels = f'tenant="counted",{WHAT},outcome="ok",reason="-",status="200"'
    assert gateway.series()[f"envoy_llm_requests_total{{{labels}}}"] == 3


def test_tokens_add_up_and_times_fall_into_buckets(gateway: MeteredGateway) -> None:
    gateway.ask(tenant="tokens", **OK, prompt_tokens=12, completion_tokens=30, first_byte_ms=17)
    gateway.ask(tenant="tokens", **OK, prompt_tokens=8, completion_tokens=5, first_byte_ms=40)
    found, labels = gateway.series(), f'tenant="tokens",{WHAT}'
    assert found[f"envoy_llm_prompt_tokens_total{{{labels}}}"] == 20
    assert found[f"envoy_llm_completion_tokens_total{{{labels}}}"] == 35
    assert found[f'envoy_llm_first_byte_milliseconds_bucket{{{labels},le="10"}}'] == 0
    assert found[f'envoy_llm_first_byte_milliseconds_bucket{{{labels},le="25"}}'] == 1
    assert found[f'envoy_llm_first_byte_milliseconds_bucket{{{labels},le="50"}}'] == 2
    assert found[f"envoy_llm_request_duration_milliseconds_count{{{labels}}}"] == 2


def test_a_refusal_is_counted_and_does_not_pass_for_a_fast_answer(gateway: MeteredGateway) -> None:
    refused = OK | {"version": "-", "outcome": "denied", "reason": "requests_per_minute"}
    assert gateway.ask(tenant="refused", **refused, status=429).status_code == httpx.codes.TOO_MANY_REQUESTS
    found = {name: value for name, value in gateway.series().items() if 'tenant="refused"' in name}
    what = 'model="support_bot",version="-"'
    labels = f'tenant="refused",{what},outcome="denied",reason="requests_per_minute",status="429"'
    assert found == {f"envoy_llm_requests_total{{{labels}}}": 1}


def test_a_request_without_tokens_writes_nothing_into_envoys_log(gateway: MeteredGateway) -> None:
    gateway.ask(tenant="aborted", model="support_bot", version="v1", outcome="aborted", reason="-")
    assert "access logger" not in gateway.log


@pytest.mark.prometheus
def test_the_metrics_are_well_formed_for_prometheus(gateway: MeteredGateway) -> None:
    assert shutil.which("promtool") is not None, "promtool is missing: apt-get install prometheus"
    gateway.ask(tenant="linted", **OK, prompt_tokens=1, completion_tokens=1, first_byte_ms=1)
    time.sleep(3 * FLUSH_S)
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=gateway.text(), capture_output=True, text=True, check=False
    )
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("envoy_llm_")]
    complaints = {line.partition(" ")[2] for line in said}
    # Envoy has no HELP and records whole milliseconds; nothing else is amiss, and it can all be parsed.
    assert complaints == {"no help text", 'use base unit "seconds" instead of "milliseconds"'}
    assert "error while linting" not in done.stderr


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/metrics"),
        ("GET", "/metrics?format=json"),
        ("GET", "/metrics/"),
        ("POST", "/metrics/audit"),
        ("GET", "/metrics/audit/../../admin.sock"),
        ("GET", "/stats/prometheus"),
        ("GET", "/config_dump"),
        ("POST", "/quitquitquit"),
        ("GET", "/metrics/../config_dump"),
        ("GET", "/"),
    ],
)
def test_the_metrics_door_opens_to_nothing_else(gateway: MeteredGateway, method: str, path: str) -> None:
    base = gateway.metrics_url.removesuffix("/metrics")
    request = httpx.Request(method, base, extensions={"target": path.encode()})
    with httpx.Client() as client:
        assert client.send(request).status_code == httpx.codes.NOT_FOUND


def test_the_collectors_own_metrics_have_no_other_door(gateway: MeteredGateway) -> None:
    url = f"{gateway.metrics_url}/audit"
    assert httpx.get(url).status_code == httpx.codes.NOT_FOUND
    text = collector_metrics(sealed=41, unsealed=2, looked_at=1_763_769_600.25)
    write_collector_metrics(gateway.folder, text)
    assert httpx.get(url).text == text


@pytest.mark.prometheus
def test_the_collectors_metrics_pass_promtools_lint() -> None:
    text = collector_metrics(sealed=41, unsealed=2, looked_at=1_763_769_600.25)
    check = ["promtool", "check", "metrics"]
    done = subprocess.run(check, input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_series_are_made_only_for_tenants_that_were_asked(make_gateway: MakeGateway, backend: int) -> None:
    gateway = make_gateway(backend)
    assert gateway.series() == {}
    answered = OK | {"prompt_tokens": 10, "completion_tokens": 20, "first_byte_ms": 30, "status": 200}
    with httpx.Client() as client:
        for number in range(TENANTS):
            said = ";".join(f"{name}={value}" for name, value in answered.items())
            client.post(gateway.url, headers={"x-llm": f"tenant=tenant-{number};{said}"}, content=b"{}")
    assert len(gateway.series()) == TENANTS * SERIES_A_TENANT
