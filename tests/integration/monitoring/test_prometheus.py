"""The rules, by promtool, and a real Prometheus that scrapes a real Envoy and a stand-in for vLLM.

Both are Debian's: `apt-get install prometheus`.
"""

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer
from typing import Any

import httpx
import pytest
import yaml

from resources.gateway.envoy_upstream import Listening
from resources.gateway.metrics import TOKEN_FILE
from resources.gateway.scrape_targets import SCRAPE_TARGETS, scrape_targets
from resources.local.gateway import LocalGateway
from resources.local.serving.servers import SOCKETS
from resources.processes.unix_sockets import short_address
from resources.seams.serving import WHOLE, Backend, Route
from tests.conftest import ROOT
from tests.integration.monitoring.conftest import LISTENING, SERVER, SOCKET, MetricsDoor
from tests.servers.ports import free_port

MONITORING = ROOT / "deployments" / "monitoring"


def route(tenant: str, *deployments: str) -> dict[str, Any]:
    """A line of routes.jsonl, as far as Prometheus is concerned."""
    backends = [{"deployment": each, "version": f"v{at + 1}"} for at, each in enumerate(deployments)]
    return {"tenant": tenant, "model": "support_bot", "backends": backends}


def listening(tenant: str, *backends: str) -> Listening:
    return {(tenant, "support_bot"): {each: f"unix:{SOCKETS}/{each}.sock" for each in backends}}


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    assert found is not None, "promtool is missing: apt-get install prometheus"
    return found


@pytest.mark.prometheus
@pytest.mark.parametrize(
    "command",
    [
        ("check", "rules", "rules.yml"),
        ("test", "rules", "rules.test.yml"),
        ("check", "config", "--syntax-only", "prometheus.yml"),  # the token is made with the gateway
    ],
    ids=" ".join,
)
def test_promtool_passes(promtool: str, command: tuple[str, ...]) -> None:
    done = subprocess.run([promtool, *command], cwd=MONITORING, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_and_says_the_next_step() -> None:
    rules = [rule for group in read("rules.yml")["groups"] for rule in group["rules"] if "alert" in rule]
    tested = {
        each["alertname"]
        for test in read("rules.test.yml")["tests"]
        for each in test.get("alert_rule_test", ())
        if each["exp_alerts"]
    }
    assert {rule["alert"] for rule in rules} == tested
    assert all(rule["annotations"]["next_step"] and rule["labels"]["severity"] for rule in rules)


def test_the_configuration_finds_the_servers_of_an_installation_as_it_stands() -> None:
    [files] = next(job for job in read("prometheus.yml")["scrape_configs"] if job["job_name"] == "vllm")[
        "file_sd_configs"
    ]
    [file] = files["files"]
    assert (MONITORING / file).resolve() == ROOT / ".llm-assets" / SCRAPE_TARGETS


def read(name: str) -> Any:
    return yaml.safe_load((MONITORING / name).read_text())


def test_a_scrape_target_says_whose_server_it_is() -> None:
    known = listening("team-a", "vllm--2") | listening("team-b", "vllm--1")
    routes = [route("team-a", "vllm--2"), route("team-b", "vllm--1")]
    labels = {"model": "support_bot", "version": "v1"}
    assert scrape_targets(routes, known) == [
        {"targets": ["vllm--1"], "labels": labels | {"tenant": "team-b", "deployment": "vllm--1"}},
        {"targets": ["vllm--2"], "labels": labels | {"tenant": "team-a", "deployment": "vllm--2"}},
    ]


def test_only_what_the_latest_route_names_is_scraped() -> None:
    known = listening("team-a", "vllm--1", "vllm--2")
    moved = scrape_targets([route("team-a", "vllm--1"), route("team-a", "vllm--2")], known)
    assert [group["targets"] for group in moved] == [["vllm--2"]]
    assert scrape_targets([route("team-a", "vllm--1"), route("team-a")], known) == []


class StandInVllm(BaseHTTPRequestHandler):
    """Answers /metrics as vLLM does (a stand-in: one of its metrics)."""

    def do_GET(self) -> None:
        assert self.path == "/metrics"
        name = b'{engine="0",model_name="support_bot"}'
        self._send(b"# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running" + name + b" 3\n")

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def vllm(door: MetricsDoor) -> Iterator[None]:
    """The server that the gateway's metrics address knows."""
    sockets = door.home / SOCKETS
    sockets.mkdir()
    with short_address(sockets / SOCKET) as address:
        server = UnixStreamServer(address, StandInVllm)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield
    server.shutdown()
    server.server_close()
    thread.join()


@contextmanager
def prometheus(folder: Path, door: MetricsDoor) -> Iterator[str]:
    """The committed configuration, with the doors of this test and no time to wait."""
    binary = shutil.which("prometheus")
    assert binary is not None, "prometheus is missing: apt-get install prometheus"
    config = read("prometheus.yml")
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    for job in config["scrape_configs"]:
        job["authorization"]["credentials_file"] = str(door.home / TOKEN_FILE)
        for targets in job.get("static_configs", ()):
            targets["targets"] = [httpx.URL(door.url).netloc.decode()]
        for files in job.get("file_sd_configs", ()):
            files["files"] = ["vllm.json"]
        for relabelled in job.get("relabel_configs", ()):
            if relabelled["target_label"] == "__address__":
                relabelled["replacement"] = httpx.URL(door.url).netloc.decode()
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(MONITORING / "rules.yml", folder)
    port = free_port()
    command = [binary, "--config.file=prometheus.yml", f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--storage.tsdb.path=data", "--log.level=warn"], cwd=folder, stdout=log, stderr=log
        )
    try:
        yield f"http://127.0.0.1:{port}/api/v1/query"
    finally:
        process.terminate()
        process.wait(15)


def answer(url: str, query: str, *, timeout_s: float = 20) -> dict[str, str]:
    """Asks until there is a result; the labels of its one series, and its value as `value`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            found = httpx.get(url, params={"query": query}).json()
        except (httpx.TransportError, json.JSONDecodeError):  # it has only just been started
            found = {}
        if found.get("status") == "success" and found["data"]["result"]:
            [series] = found["data"]["result"]
            return {**series["metric"], "value": series["value"][1]}
        time.sleep(0.2)
    raise AssertionError(f"{query} has no result after {timeout_s} s: {found}")


@pytest.mark.prometheus
def test_a_real_prometheus_knows_the_tenants_requests_the_servers_and_the_collector(
    door: MetricsDoor, vllm: None, tmp_path: Path
) -> None:
    door.counted.looked(sealed=5, unsealed=0)
    targets = scrape_targets([route("team-a", SERVER)], LISTENING)
    (tmp_path / "vllm.json").write_text(json.dumps(targets))
    for _ in range(4):
        door.ask()
    with prometheus(tmp_path, door) as url:
        asked = answer(url, 'llm_requests_total{tenant="team-a"}')
        assert (asked["value"], asked["model"], asked["status"]) == ("4", "support_bot", "200")
        running = answer(url, "vllm:num_requests_running")
        labels = ("tenant", "model", "version", "deployment", "instance", "value")
        assert {name: running[name] for name in labels} == {
            "tenant": "team-a",
            "model": "support_bot",
            "version": "v1",
            "deployment": "vllm--1",
            "instance": "vllm--1",
            "value": "3",
        }
        assert answer(url, "llm_audit_sealed_records_total")["value"] == "5"
        for _ in range(6):
            door.ask()
        rate = answer(url, 'tenant_model:llm_requests:rate5m{tenant="team-a"} > 0')
        assert rate["model"] == "support_bot"
        assert answer(url, 'count(ALERTS{alertstate="firing"}) or vector(0)')["value"] == "0"


def test_what_is_published_is_what_prometheus_is_told(tmp_path: Path) -> None:
    backend = Backend(
        id="vllm--1",
        version="2026",
        digest="sha256:v1",
        fingerprint="f",
        address=f"unix:{SOCKETS}/1.sock",
        weight=WHOLE,
        since=1.0,
    )
    gateway = LocalGateway(home=tmp_path)
    gateway.publish(
        Route(tenant="team-a", model="support_bot", backends=(backend,), api_key="not told to Prometheus")
    )
    text = (tmp_path / SCRAPE_TARGETS).read_text()
    labels = {"tenant": "team-a", "model": "support_bot", "version": "2026", "deployment": "vllm--1"}
    assert json.loads(text) == [{"targets": ["vllm--1"], "labels": labels}]
    gateway.withdraw("team-a", "support_bot")
    assert json.loads((tmp_path / SCRAPE_TARGETS).read_text()) == []
