"""Load on a gateway of this machine: Debian's wrk, and many streams at once.

`throughput` keeps some connections busy. `latency` has many connections that each wait a random while
(exponential) between an answer and the next question, so that requests come as from many clients that know
nothing of each other. Both count an answer of 400 and above as an error.
"""

import asyncio
import ctypes.util
import json
import math
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

CONNECTIONS = 32
PAUSE_S = 0.02
FIRST_S = 60
LEAST_CONNECTIONS = 4
WRK_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = assert(io.open(os.getenv("BENCH_BODY"))):read("*a")
for line in io.lines(os.getenv("BENCH_HEADERS")) do
  local name, value = line:match("^(.-): (.*)$")
  wrk.headers[name] = value
end
local pause_ms = tonumber(os.getenv("BENCH_PAUSE_MS"))
if pause_ms > 0 then
  function delay() return math.floor(-pause_ms * math.log(1 - math.random()) + 0.5) end
end
function done(summary, latency)
  local found = summary.errors
  local bad = found.connect + found.read + found.write + found.timeout
  local text = '\\n{"requests":%d,"us":%d,"refused":%d,"lost":%d,"p50_us":%d,"p99_us":%d}\\n'
  local p50, p99 = latency:percentile(50), latency:percentile(99)
  io.write(text:format(summary.requests, summary.duration, found.status, bad, p50, p99))
end
"""


class LoadError(Exception):
    """A load tool is missing or failed, or a gateway did not answer its load."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked: a URL, a JSON body and headers."""

    url: str
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Of requests sent at a fixed rate."""

    rate: float
    p50_ms: float
    p99_ms: float
    errors: int


@dataclass(frozen=True, kw_only=True)
class Streams:
    """Of many streams at once. `first_byte_p99_ms` is None where none of them began."""

    asked: int
    finished: int
    first_byte_p99_ms: float | None
    seconds: float


def require_tools() -> None:
    """What no lock can bring.

    Raises:
        LoadError: One is missing; names its Debian package.
    """
    if shutil.which("wrk") is None:
        raise LoadError("wrk is missing: apt-get install wrk")
    if ctypes.util.find_library("sndfile") is None:
        raise LoadError("libsndfile is missing, which LiteLLM's proxy loads: apt-get install libsndfile1")


def require_answer(question: Question) -> None:
    """One question, however long the first one takes; the gateway is warm then.

    Raises:
        LoadError: It is not answered as a chat completion.
    """
    headers = {"content-type": "application/json"} | question.headers
    answer = httpx.post(question.url, content=question.body, headers=headers, timeout=FIRST_S)
    if answer.status_code != httpx.codes.OK or "choices" not in answer.json():
        raise LoadError(f"{question.url} answered {answer.status_code}: {answer.text[:2000]}")


def throughput(question: Question, folder: Path, *, seconds: float) -> tuple[float, int]:
    """Requests per second that were answered, and how many were not."""
    found = _wrk(question, folder, connections=CONNECTIONS, pause_s=0, seconds=seconds)
    return (found["requests"] - found["refused"]) / (found["us"] / 1e6), found["refused"] + found["lost"]


def latency(question: Question, folder: Path, *, rate: float, seconds: float) -> Latency:
    """About `rate` requests a second, each timed from when it was sent."""
    connections = max(LEAST_CONNECTIONS, round(rate * PAUSE_S))
    found = _wrk(question, folder, connections=connections, pause_s=connections / rate, seconds=seconds)
    return Latency(
        rate=found["requests"] / (found["us"] / 1e6),
        p50_ms=found["p50_us"] / 1000,
        p99_ms=found["p99_us"] / 1000,
        errors=found["refused"] + found["lost"],
    )


def _wrk(
    question: Question, folder: Path, *, connections: int, pause_s: float, seconds: float
) -> dict[str, int]:
    for name, text in (("wrk.lua", WRK_SCRIPT.encode()), ("body", question.body)):
        (folder / name).write_bytes(text)
    (folder / "headers").write_text("".join(f"{key}: {text}\n" for key, text in question.headers.items()))
    environment = os.environ | {
        "BENCH_BODY": str(folder / "body"),
        "BENCH_HEADERS": str(folder / "headers"),
        "BENCH_PAUSE_MS": str(pause_s * 1000),
    }
    load = ["wrk", "-t1", f"-c{connections}", f"-d{math.ceil(seconds)}s", "--timeout", "20s"]
    command = [*load, "-s", str(folder / "wrk.lua"), question.url]
    limit = math.ceil(seconds) + 60
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=limit, check=False
    )
    if done.returncode:
        raise LoadError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    found: dict[str, int] = json.loads(done.stdout.strip().splitlines()[-1])
    if not found["requests"]:
        raise LoadError(f"{question.url} answered nothing in {seconds} s.")
    return found


def quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def streams(question: Question, *, count: int, timeout_s: float) -> Streams:
    """Asks for `count` streams at once and reads all to their end, `data: [DONE]`."""
    started = time.monotonic()
    ended = asyncio.run(_all_streams(question, count, timeout_s))
    first = sorted(each[0] for each in ended if each[0] is not None)
    return Streams(
        asked=count,
        finished=sum(each[1] for each in ended),
        first_byte_p99_ms=quantile(first, 0.99) * 1000 if first else None,
        seconds=time.monotonic() - started,
    )


async def _all_streams(question: Question, count: int, timeout_s: float) -> list[tuple[float | None, bool]]:
    return await asyncio.gather(*(_stream(question, timeout_s) for _ in range(count)))


async def _stream(question: Question, timeout_s: float) -> tuple[float | None, bool]:
    """Seconds to the first byte of the body, and whether the end came."""
    host, _, path = question.url.removeprefix("http://").partition("/")
    name, _, port = host.partition(":")
    lines = [f"POST /{path} HTTP/1.1", f"host: {host}", "content-type: application/json", "connection: close"]
    lines += [f"content-length: {len(question.body)}"]
    lines += [f"{key}: {text}" for key, text in question.headers.items() if key.lower() != "host"]
    if "Host" in question.headers:
        lines[1] = f"host: {question.headers['Host']}"
    started, first, tail = time.monotonic(), None, b""
    writer = None
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(name, int(port))
            writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + question.body)
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head.split(b"\r\n", 1)[0]:
                return None, False
            while piece := await reader.read(65536):
                first = first if first is not None else time.monotonic() - started
                tail = (tail + piece)[-200:]
                if b"[DONE]" in tail:
                    return first, True
    except (TimeoutError, OSError, asyncio.IncompleteReadError):
        return first, False
    finally:
        if writer is not None:
            writer.close()
    return first, False


def cpu_seconds(pids: Sequence[int]) -> float:
    """Of these processes and their children, so far."""
    return sum(sum(each.cpu_times()[:2]) for each in _family(pids))


def memory_bytes(pids: Sequence[int]) -> int:
    return sum(each.memory_info().rss for each in _family(pids))


def _family(pids: Sequence[int]) -> set[psutil.Process]:
    found = {psutil.Process(pid) for pid in pids}
    return found | {child for each in found for child in each.children(recursive=True)}
