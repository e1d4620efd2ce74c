"""What the gateway costs, beside its peers, before the same stand-in for vLLM, all on this machine.

    make bench BENCH=gateway
    make bench BENCH=gateway ARGS="--flat 600"     # ten minutes of load for the memory

`rps_over_litellm`: requests a second of ours, with keys, limits, audit records and the collector on, over
those of LiteLLM's Python proxy with keys on.
`rps_of_bare_envoy`: over those of an Envoy that has a route and no filter.
`added_p99_ms`: at half of our own most requests a second, the 99th percentile through ours less that of
asking the stand-in directly at the same rate. LiteLLM's latencies are at half of its own most.
`requests_per_core_s` counts the CPU seconds of the gateway's own processes alone (ours: Envoy and the
collector). The load and the stand-ins share the cores with everything else.
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.gateway_load import (
    Latency,
    cpu_seconds,
    latency,
    memory_bytes,
    require_answer,
    require_wrk,
    streams,
    throughput,
)
from benchmarks.gateway_stand_ins import StandIns, stand_ins
from benchmarks.gateway_systems import Gateway, bare_envoy, direct, litellm, ours
from benchmarks.measuring import conclude

MIB = 2**20
WARM_S = 2
STREAMS_TIMEOUT_S = 90
SAMPLE_S = 0.5
NOT_INSTALLABLE = "LiteLLM gateway (Rust): not installable from PyPI"
"""PyPI has no package of that name or kind by LiteLLM's makers; its Python proxy is the one that is there."""

Start = Callable[[Path, StandIns], AbstractContextManager[Gateway]]


class Bench:
    """One run: every system alone, one after the other, before the same stand-ins."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.options = folder, options
        self.seconds, self.streams = options.seconds, options.streams
        self.rows: dict[str, dict[str, Any]] = {}
        self.alone: Latency | None = None

    def run(self) -> dict[str, float]:
        with stand_ins(self.folder) as behind:
            with ours(self.folder, behind) as gateway:
                row = self.most(gateway)
                half = row["requests_per_s"] / 2
                self.slow(gateway, half, row)
                self.many_streams(gateway, row)
                self.flat(gateway, half, row)
            for start in (direct, bare_envoy):
                with start(self.folder, behind) as peer:
                    row = self.most(peer)
                    self.slow(peer, half, row)
                    if start is bare_envoy:
                        self.many_streams(peer, row)
            with litellm(self.folder, behind) as peer:
                row = self.most(peer)
                self.slow(peer, row["requests_per_s"] / 2, row)
                self.many_streams(peer, row)
        return self.bars()

    def most(self, gateway: Gateway) -> dict[str, Any]:
        """As many requests as it can answer."""
        require_answer(gateway.whole())
        throughput(gateway.whole(), self.folder, seconds=WARM_S)
        used, started = cpu_seconds(gateway.pids), time.monotonic()
        rates, errors = [], 0
        for _ in range(self.options.rounds):
            rate, failed = throughput(gateway.whole(), self.folder, seconds=self.seconds)
            rates.append(rate)
            errors += failed
        cores = (cpu_seconds(gateway.pids) - used) / (time.monotonic() - started)
        rate = statistics.median(rates)
        row: dict[str, Any] = {"system": gateway.name, "requests_per_s": rate, "errors": errors}
        row |= {"requests_per_core_s": rate / cores, "memory_MiB": memory_bytes(gateway.pids) / MIB}
        self.rows[gateway.name] = row
        self.say(f"{gateway.name}: {rate:,.0f} requests/s, {errors} errors")
        return row

    def slow(self, gateway: Gateway, rate: float, row: dict[str, Any]) -> None:
        """At a rate that it has room for."""
        found = latency(gateway.whole(), self.folder, rate=rate, seconds=self.seconds)
        row |= {"at_rate_per_s": found.rate, "p50_ms": found.p50_ms, "p99_ms": found.p99_ms}
        row["errors"] += found.errors
        self.say(
            f"{gateway.name}: p50 {found.p50_ms:.2f} ms, p99 {found.p99_ms:.2f} ms at {found.rate:,.0f}/s"
        )

    def many_streams(self, gateway: Gateway, row: dict[str, Any]) -> None:
        """Many at once; the most memory while they last."""
        over, peak = threading.Event(), [0]
        watcher = threading.Thread(target=_watch, args=(gateway, over, peak))
        watcher.start()
        found = streams(gateway.stream(), count=self.streams, timeout_s=STREAMS_TIMEOUT_S)
        over.set()
        watcher.join()
        row |= {"streams": f"{found.finished}/{found.asked}", "streams_s": found.seconds}
        row |= {"first_byte_p99_ms": found.first_byte_p99_ms, "streams_MiB": peak[0] / MIB}
        self.say(f"{gateway.name}: {found.finished} of {found.asked} streams in {found.seconds:.1f} s")

    def flat(self, gateway: Gateway, rate: float, row: dict[str, Any]) -> None:
        """Memory over time at half load: the median of the last quarter over that of the second."""
        samples, over = [], threading.Event()

        def watch() -> None:
            while not over.wait(SAMPLE_S):
                samples.append(memory_bytes(gateway.pids))

        watcher = threading.Thread(target=watch)
        watcher.start()
        latency(gateway.whole(), self.folder, rate=rate, seconds=self.options.flat)
        over.set()
        watcher.join()
        quarter = max(1, len(samples) // 4)
        before, after = (
            statistics.median(part) for part in (samples[quarter : 2 * quarter], samples[-quarter:])
        )
        row |= {"flat_s": self.options.flat, "flat_MiB": after / MIB, "growth_MiB": (after - before) / MIB}
        self.say(f"{gateway.name}: {before / MIB:.1f} -> {after / MIB:.1f} MiB over {self.options.flat} s")

    def bars(self) -> dict[str, float]:
        alone, bare, own, peer = (
            next(row for name, row in self.rows.items() if name.startswith(word))
            for word in ("direct", "Envoy", "llm-assets", "LiteLLM")
        )
        for row in (bare, own):
            row["added_p50_ms"] = row["p50_ms"] - alone["p50_ms"]
            row["added_p99_ms"] = row["p99_ms"] - alone["p99_ms"]
        return {
            "rps_over_litellm": own["requests_per_s"] / peer["requests_per_s"],
            "rps_of_bare_envoy": own["requests_per_s"] / bare["requests_per_s"],
            "added_p99_ms": own["added_p99_ms"],
        }

    @staticmethod
    def say(text: str) -> None:
        Console().print(text, highlight=False)


def _watch(gateway: Gateway, over: threading.Event, peak: list[int]) -> None:
    while not over.wait(SAMPLE_S):
        peak[0] = max(peak[0], memory_bytes(gateway.pids))


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--seconds", type=float, default=10, help="of each measurement")
    options.add_argument("--rounds", type=int, default=1, help="of each throughput")
    options.add_argument("--streams", type=int, default=512, help="at once")
    options.add_argument("--flat", type=float, default=60, help="seconds for which memory has to stay flat")
    require_wrk()
    with tempfile.TemporaryDirectory(prefix="gateway-") as folder:
        bench = Bench(Path(folder), options.parse_args())
        bars = bench.run()
    columns = list(dict.fromkeys(name for row in bench.rows.values() for name in row))
    rows = [{name: row.get(name, "-") for name in columns} for row in bench.rows.values()]
    rows.append(dict.fromkeys(columns, "-") | {"system": NOT_INSTALLABLE})
    conclude("gateway", rows, bars)


if __name__ == "__main__":
    main()
