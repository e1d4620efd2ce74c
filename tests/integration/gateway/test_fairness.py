"""500 clients of one key, whatever they do, are no worse to the others than 500 clients with a key each.

Who waits, waits for the one worker: what a request costs it says how much others wait. `long` are the waits
themselves, their 99th percentiles under the same load in the same run, which takes minutes.
"""

import asyncio
import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import cached_property
from http.client import HTTPResponse
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import pytest

from benchmarks.gateway_load import quantile
from resources.gateway.api_keys import create_key
from resources.gateway.envoy import running_gateway
from resources.gateway.limits import Limits
from tests.integration.gateway.gateways import question
from tests.integration.gateway.test_overload import BODY_BYTES, MODELS, TENANTS, Crowd
from tests.integration.gateway.whole_gateways import Deployment, whole_gateway

CLIENTS = 500
PAUSE_MS = 1000  # of each, on average, between an answer and the next question
ROUND_S = 8
ROUNDS = 3
COUNT = 250
PROBES = 16  # clients that are neither
SCRIPT = """
local requests = {}
for line in io.lines(os.getenv("REQUESTS")) do requests[#requests + 1] = line:gsub("\\\\n", "\\r\\n") end
local at = 0
local pause_ms = tonumber(os.getenv("PAUSE_MS"))
function request()
  at = at % #requests + 1
  return requests[at]
end
function delay() return math.floor(-pause_ms * math.log(1 - math.random()) + 0.5) end
function done(summary, latency)
  io.write(('\\n{"requests":%d,"refused":%d}\\n'):format(summary.requests, summary.errors.status))
end
"""


def line(
    key: str, body: bytes, *, length: int | None = None, path: str = "chat/completions", tenant: str
) -> str:
    """A request as the script of wrk reads it."""
    head = f"POST /t/{tenant}/v1/{path} HTTP/1.1\\nhost: a\\nauthorization: Bearer {key}\\n"
    return f"{head}content-length: {len(body) if length is None else length}\\n\\n{body.decode()}"


UNFINISHED = "bodies that never end"
ASKED = json.dumps(question()).encode()
ABUSES: dict[str, tuple[Limits, bytes, dict[str, Any]]] = {
    "more at once than it may": (Limits(concurrent_requests=1), ASKED, {}),
    "more in a minute than it may": (Limits(requests_per_minute=1), ASKED, {}),
    UNFINISHED: (Limits(concurrent_requests=1), b"{", {"length": BODY_BYTES}),
    f"{UNFINISHED}, without a limit": (Limits(), b"{", {"length": BODY_BYTES}),
    "a model that is not there": (Limits(), json.dumps(question(model="x")).encode(), {}),
    "no JSON": (Limits(), b"{" + ASKED, {}),
    "more tokens than it may": (Limits(tokens_per_minute=10), json.dumps(question(n=500)).encode(), {}),
    "an endpoint that is not there": (Limits(), ASKED, {"path": "nothing"}),
    "a revoked key": (Limits(), ASKED, {}),
}


class Loaded:
    """A gateway, and wrk as its clients."""

    def __init__(self, crowd: Crowd, folder: Path) -> None:
        self.crowd, self.folder = crowd, folder
        self.probe = crowd.key("team-b")
        (folder / "load.lua").write_text(SCRIPT)

    @cached_property
    def keys(self) -> list[str]:
        """One for each of the fair clients."""
        return [self.crowd.key() for _ in range(CLIENTS)]

    def p99_s(self, lines: list[str], *, hanging: bool = False) -> float:
        """Of the others, while wrk's clients ask these."""
        requests = self.folder / "requests"
        requests.write_text("\n".join(lines) + "\n")
        program = ["wrk", "-t", "1", "-c", str(CLIENTS), "-d", f"{ROUND_S}s", "--timeout", "60s"]
        command = [*program, "-s", "load.lua", f"http://127.0.0.1:{self.crowd.gateway.port}"]
        if hanging:  # wrk sends whole requests alone
            command = [sys.executable, __file__, str(self.crowd.gateway.port)]
        environment = {**os.environ, "REQUESTS": str(requests), "PAUSE_MS": str(PAUSE_MS)}
        taken: list[float] = []
        over = threading.Event()
        with subprocess.Popen(command, cwd=self.folder, env=environment, stdout=subprocess.PIPE) as load:
            time.sleep(1)  # until all of them are connected
            probes = [threading.Thread(target=self._probe, args=(taken, over)) for _ in range(PROBES)]
            for each in probes:
                each.start()
            try:
                said, _ = load.communicate(timeout=ROUND_S + 60)
            finally:
                load.kill()
                over.set()
                for each in probes:
                    each.join()
        self.asked = json.loads(said.decode().strip().splitlines()[-1])
        assert len(taken) > 300, "a percentile of a few says nothing"
        return quantile(sorted(taken), 0.99)

    def _probe(self, taken: list[float], over: threading.Event) -> None:
        crowd = Crowd.__new__(Crowd)
        crowd.gateway, crowd.client = self.crowd.gateway, self.crowd.new_client()
        with crowd.client:
            while not over.is_set():
                began = time.monotonic()
                answer = crowd.ask(self.probe, "team-b")
                taken.append(time.monotonic() - began)
                assert answer.status_code == 200, answer.text
                time.sleep(0.02)

    def worker_s(self, request: bytes, count: int) -> float:
        """Seconds of Envoy's processor for so many of a request, one after another."""
        running = running_gateway(self.crowd.gateway.folder.parent)
        assert running
        process = psutil.Process(running.pid)
        before = process.cpu_times()
        with contextlib.ExitStack() as stack:
            client: socket.socket | None = None
            for _ in range(count):
                if client is None:
                    client = socket.create_connection(("127.0.0.1", self.crowd.gateway.port), timeout=20)
                    stack.callback(client.close)
                client.sendall(request)
                with HTTPResponse(client) as answer:
                    answer.begin()
                    answer.read()
                    closed = answer.will_close
                if closed:
                    client.close()
                    client = None
        after = process.cpu_times()
        return after.user + after.system - before.user - before.system


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    live = [Deployment(tenant=name, model=model) for name in TENANTS for model in MODELS]
    with whole_gateway(tmp_path_factory.mktemp("loaded"), live) as gateway:
        crowd = Crowd(gateway)
        yield Loaded(crowd, tmp_path_factory.mktemp("load"))
        crowd.client.close()


@pytest.mark.parametrize("abuse", [each for each in ABUSES if each != f"{UNFINISHED}, without a limit"])
def test_what_is_refused_costs_the_worker_no_more_than_what_is_answered(loaded: Loaded, abuse: str) -> None:
    limits, body, how = ABUSES[abuse]
    keys, asked = loaded.crowd.gateway.keys, {}
    for name, given in (("fair", Limits()), ("abuse", limits)):
        asked[name] = create_key(keys, tenant="team-a", name=name, actor="x", by="tests", limits=given)[1]
    if abuse == "a revoked key":
        asked["abuse"] = asked["abuse"][:-1] + ("A" if asked["abuse"][-1] != "A" else "B")
    fair = line(asked["fair"], ASKED, tenant="team-a")
    other = line(asked["abuse"], body, tenant="team-a", **how)
    with socket.create_connection(("127.0.0.1", loaded.crowd.gateway.port)) as first:
        if limits.concurrent_requests:  # the place is taken, and every other one is refused
            first.sendall(
                line(asked["abuse"], b"{", tenant="team-a", length=9).replace("\\n", "\r\n").encode()
            )
        taken = [
            loaded.worker_s(each.replace("\\n", "\r\n").encode(), COUNT)
            for each in (fair, other, fair, other)
        ]
    assert taken[0] > 0.02, "a processor's time of a few ticks says nothing"
    assert taken[1] + taken[3] <= 2 * (taken[0] + taken[2]), taken


@pytest.mark.long
@pytest.mark.parametrize("abuse", ABUSES)
def test_500_abusive_clients_of_one_key_are_no_worse_than_500_with_a_key_each(
    loaded: Loaded, abuse: str
) -> None:
    limits, body, how = ABUSES[abuse]
    key = create_key(
        loaded.crowd.gateway.keys, tenant="team-a", name="x", actor="x", by="tests", limits=limits
    )[1]
    if abuse == "a revoked key":
        key = key[:-1] + ("A" if key[-1] != "A" else "B")
    fair = [line(each, ASKED, tenant="team-a") for each in loaded.keys]
    found: dict[str, list[float]] = {"fair": [], "abuse": []}
    for _ in range(ROUNDS):
        found["fair"].append(loaded.p99_s(fair))
        fairly = dict(loaded.asked)
        abusive = [line(key, body, tenant="team-a", **how)]
        found["abuse"].append(loaded.p99_s(abusive, hanging=abuse.startswith(UNFINISHED)))
        shown = [f"{each[-1] * 1000:.1f} ms" for each in found.values()]
        print(f"{abuse}: {shown}, asked {fairly} and {loaded.asked}")
    ratios = [each / fairly_s for fairly_s, each in zip(found["fair"], found["abuse"], strict=True)]
    assert median(ratios) <= 2, found


async def _hang(port: int, request: bytes, until: float) -> int:
    """Sends the beginning of a request again and again, and waits for what comes of it; how often."""
    count = 0
    while (left := until - time.monotonic()) > 0:
        with contextlib.suppress(OSError, TimeoutError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            await asyncio.wait_for(reader.read(), timeout=left)
            writer.close()
        count += 1
        await asyncio.sleep(min(left, random.expovariate(1000 / PAUSE_MS)))
    return count


async def _hang_all(port: int) -> None:
    request = Path(os.environ["REQUESTS"]).read_text().strip().replace("\\n", "\r\n").encode()
    until = time.monotonic() + ROUND_S
    counts = await asyncio.gather(*(_hang(port, request, until) for _ in range(CLIENTS)))
    print(json.dumps({"requests": sum(counts)}))


if __name__ == "__main__":
    asyncio.run(_hang_all(int(sys.argv[1])))
