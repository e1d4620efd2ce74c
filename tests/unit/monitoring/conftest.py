"""A real Envoy with the gateway's metrics; in place of its policy, a few lines of Lua that say who asks."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import envoy
import httpx
import pytest

from resources.gateway import metrics
from resources.gateway.collector_metrics import FILE
from resources.gateway.envoy_settings import LUA_FOLDER
from tests.servers.ports import free_port

BINARY = Path(envoy.__file__).parent / "_bin" / "envoy"
TYPES = "type.googleapis.com/envoy.extensions.filters"
ADMIN = "admin.sock"
FLUSH_S = 0.2  # the tests do not wait as long as a scraper may

# The stand-in for the policy: a header `x-llm: tenant=team-a;…` says what it would know of the request.
POLICY = f"""
package.path = "{LUA_FOLDER}/?.lua;" .. package.path
local labels = require("labels")
function envoy_on_request(handle)
  local said = handle:headers():get("x-llm") or ""
  local known = {{}}
  for name, value in said:gmatch("([%w_]+)=([^;]*)") do known[name] = tonumber(value) or value end
  labels.ask(handle, known.tenant, known.model, known.version)
  local prompt, completion = known.prompt_tokens, known.completion_tokens
  labels.outcome(handle, known.outcome, known.reason, prompt, completion, known.first_byte_ms)
  if said:find("status=") then handle:respond({{[":status"] = said:match("status=(%d+)")}}, "") end
end
"""


@dataclass(frozen=True, kw_only=True)
class MeteredGateway:
    """Envoy's two doors."""

    url: str
    metrics_url: str
    folder: Path

    @property
    def log(self) -> str:
        return (self.folder / "envoy.log").read_text()

    def ask(self, **known: object) -> httpx.Response:
        said = ";".join(f"{name}={value}" for name, value in known.items())
        return httpx.post(f"{self.url}/v1/chat/completions", headers={"x-llm": said}, content=b"{}")

    def text(self) -> str:
        return httpx.get(self.metrics_url).text

    def series(self) -> dict[str, float]:
        """What this project counts, once all of it was flushed; the value by name and labels."""
        time.sleep(3 * FLUSH_S)
        ours = [line for line in self.text().splitlines() if line.startswith("envoy_llm_")]
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in ours}


def door(port: int, backend: int) -> dict[str, Any]:
    """The gateway's listener as far as metrics see it."""
    policy = {"@type": f"{TYPES}.http.lua.v3.Lua", "default_source_code": {"inline_string": POLICY}}
    router = {"@type": f"{TYPES}.http.router.v3.Router"}
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "backend"}}]
    manager = {
        "@type": f"{TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "door",
        "access_log": metrics.access_log(),
        "http_filters": [
            {"name": "lua", "typed_config": policy},
            {"name": "envoy.filters.http.router", "typed_config": router},
        ],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    return {"name": "door", "address": address, "filter_chains": [chain]}


def cluster_of(port: int) -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {
        "name": "backend",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": "backend", "endpoints": endpoints},
    }


MakeGateway = Callable[[int], MeteredGateway]


@pytest.fixture(scope="module")
def make_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeGateway]:
    """Starts gateways before a backend's port; they end with the module."""
    started: list[subprocess.Popen[bytes]] = []

    def make(backend: int) -> MeteredGateway:
        folder = tmp_path_factory.mktemp("envoy")
        port, metrics_port = free_port(), free_port()
        bootstrap = {
            "admin": {"address": {"pipe": {"path": ADMIN}}},
            "static_resources": {
                "listeners": [door(port, backend), metrics.listener(metrics_port, folder / FILE)],
                "clusters": [cluster_of(backend), metrics.cluster(ADMIN)],
            },
            **metrics.bootstrap_fields(),
            "stats_flush_interval": f"{FLUSH_S}s",
        }
        (folder / "bootstrap.json").write_text(json.dumps(bootstrap))
        command = [BINARY, "-c", "bootstrap.json", "--concurrency", "1", "--use-dynamic-base-id"]
        with (folder / "envoy.log").open("wb") as log:
            process = subprocess.Popen([*command, "-l", "warn"], cwd=folder, stdout=log, stderr=log)
        started.append(process)
        url = f"http://127.0.0.1:{metrics_port}/metrics"
        deadline = time.monotonic() + 30
        while not _answers(url):
            assert process.poll() is None, (folder / "envoy.log").read_text()
            assert time.monotonic() < deadline, (folder / "envoy.log").read_text()
            time.sleep(0.05)
        return MeteredGateway(url=f"http://127.0.0.1:{port}", metrics_url=url, folder=folder)

    yield make
    for process in started:
        process.terminate()
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
