"""What the gateway costs, beside its peers, before the same stand-in for vLLM, all on this machine.

    apt-get install wrk libsndfile1                # all else of the peers is in litellm.lock.txt
    make bench BENCH=gateway
    make bench BENCH=gateway ARGS="--flat 600"     # ten minutes of load for the memory

`rps_over_litellm`: requests a second of ours, with keys, limits, audit records and the collector on, over
those of LiteLLM's Python proxy with keys on.
`rps_of_bare_envoy`: over those of an Envoy that has a route and no filter.
`p99_over_bare_envoy`: at a tenth of our own most requests a second, the 99th percentile through ours over
that through the bare Envoy at the same rate, in alternating rounds; the median of the rounds' ratios.
The rows say the same of half of our own most, where requests wait for one another.

What bounds them is the one worker, for each request the interpreter that the filter runs in and the spool's
write, and on two cores the load and the stand-in that share them (the row of the stand-in alone shows it).
`requests_per_core_s` counts the CPU seconds of the gateway's own processes alone (ours: Envoy and the
collector).
"""

import argparse
import statistics
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.gateway_load import (
    Latency,
    cpu_seconds,
    latency,
    memory_bytes,
    require_answer,
    require_tools,
    streams,
    throughput,
)
from benchmarks.gateway_stand_ins import stand_ins
from benchmarks.gateway_systems import Gateway, bare_envoy, direct, litellm, ours
from benchmarks.measuring import conclude

MIB = 2**20
WARM_S = 5
STREAMS_TIMEOUT_S = 90
SAMPLE_S = 0.5
LOADS = {"_at_a_tenth": 0.1, "_at_half": 0.5}
"""What the names of latencies end in, and the share of our most requests a second at which they are taken."""
BOUND_BY = {
    "rps_over_litellm": "the Python interpreter of LiteLLM",
    "rps_of_bare_envoy": "the filter's CPU time in one worker",
    "p99_over_bare_envoy": "the filter's CPU time, and wakeups of the cores that all share",
}
NOT_INSTALLABLE = {"system": "LiteLLM (Rust)", "requests_per_s": "not installable"}
"""PyPI has no such package by LiteLLM's makers; its Python proxy is the one that is there."""


class Bench:
    """One run: all gateways stand ready, and take turns before the same stand-ins."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.options = folder, options
        self.rows: dict[str, dict[str, Any]] = {}
        self.waits: dict[tuple[str, str], list[Latency]] = {}

    def run(self) -> dict[str, float]:
        with ExitStack() as stack:
            behind = stack.enter_context(stand_ins(self.folder))
            systems = (direct, bare_envoy, ours, litellm)
            gateways = [stack.enter_context(start(self.folder, behind)) for start in systems]
            alone, bare, own, peer = gateways
            for gateway in gateways:
                require_answer(gateway.whole())
                throughput(gateway.whole(), self.folder, seconds=WARM_S)
            self.most(gateways)
            most = self.rows[own.name]["requests_per_s"]
            for ending, share in LOADS.items():
                self.slow((alone, bare, own), most * share, ending)
                self.slow((peer,), self.rows[peer.name]["requests_per_s"] * share, ending)
            for gateway in (bare, own, peer):
                self.many_streams(gateway, self.rows[gateway.name])
            self.flat(own, most / 2, self.rows[own.name])
        return self.bars(bare, own, peer)

    def most(self, gateways: Sequence[Gateway]) -> None:
        """As many requests as they can answer: the median of some rounds."""
        rates: dict[str, list[float]] = {gateway.name: [] for gateway in gateways}
        cores: dict[str, list[float]] = {gateway.name: [] for gateway in gateways}
        failed = dict.fromkeys(rates, 0)
        for _ in range(self.options.rounds):
            for gateway in gateways:
                used = cpu_seconds(gateway.pids)
                rate, errors = throughput(gateway.whole(), self.folder, seconds=self.options.seconds)
                rates[gateway.name].append(rate)
                cores[gateway.name].append((cpu_seconds(gateway.pids) - used) / self.options.seconds)
                failed[gateway.name] += errors
                self.say(f"{gateway.name}: {rate:,.0f} requests/s, {errors} errors")
        for gateway in gateways:
            name, rate = gateway.name, statistics.median(rates[gateway.name])
            each = [rate / core for rate, core in zip(rates[name], cores[name], strict=True)]
            row = {"system": name, "requests_per_s": rate, "errors": failed[name]}
            row |= {"requests_per_core_s": statistics.median(each)}
            self.rows[name] = row | {"memory_MiB": memory_bytes(gateway.pids) / MIB}

    def slow(self, gateways: Sequence[Gateway], rate: float, ending: str) -> None:
        """At a rate that they have room for, one after another in each round."""
        for _ in range(self.options.rounds):
            for gateway in gateways:
                found = latency(gateway.whole(), self.folder, rate=rate, seconds=self.options.seconds)
                self.waits.setdefault((gateway.name, ending), []).append(found)
                waits = f"p50 {found.p50_ms:.2f} ms, p99 {found.p99_ms:.2f} ms"
                self.say(f"{gateway.name}: {waits} at {found.rate:,.0f}/s")
        for gateway in gateways:
            found_here, row = self.waits[gateway.name, ending], self.rows[gateway.name]
            row |= {f"at_rate_per_s{ending}": statistics.median(each.rate for each in found_here)}
            row |= {f"p50_ms{ending}": statistics.median(each.p50_ms for each in found_here)}
            row |= {f"p99_ms{ending}": statistics.median(each.p99_ms for each in found_here)}
            row["errors"] += sum(each.errors for each in found_here)

    def many_streams(self, gateway: Gateway, row: dict[str, Any]) -> None:
        """Many at once; the most memory while they last."""
        over, peak = threading.Event(), [0]
        watcher = threading.Thread(target=_watch, args=(gateway, over, peak))
        watcher.start()
        found = streams(gateway.stream(), count=self.options.streams, timeout_s=STREAMS_TIMEOUT_S)
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

    def bars(self, bare: Gateway, own: Gateway, peer: Gateway) -> dict[str, float]:
        for ending in LOADS:
            pairs = zip(self.waits[own.name, ending], self.waits[bare.name, ending], strict=True)
            ratios = [through.p99_ms / without.p99_ms for through, without in pairs]
            self.rows[own.name] |= {f"p99_over_bare_envoy{ending}": statistics.median(ratios)}
            self.say(f"p99 over bare Envoy{ending}, by round: {', '.join(f'{each:.2f}' for each in ratios)}")
        rates = {name: row["requests_per_s"] for name, row in self.rows.items()}
        return {
            "rps_over_litellm": rates[own.name] / rates[peer.name],
            "rps_of_bare_envoy": rates[own.name] / rates[bare.name],
            "p99_over_bare_envoy": self.rows[own.name]["p99_over_bare_envoy_at_a_tenth"],
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
    options.add_argument("--seconds", type=float, default=6, help="of each measurement")
    options.add_argument("--rounds", type=int, default=5, help="of each throughput and latency")
    options.add_argument("--streams", type=int, default=512, help="at once")
    options.add_argument("--flat", type=float, default=60, help="seconds for which memory has to stay flat")
    require_tools()
    with tempfile.TemporaryDirectory(prefix="gateway-") as folder:
        bench = Bench(Path(folder), options.parse_args())
        bars = bench.run()
    columns = list(dict.fromkeys(name for row in bench.rows.values() for name in row))
    rows = [{name: row.get(name, "-") for name in columns} for row in bench.rows.values()]
    rows.append(dict.fromkeys(columns, "-") | NOT_INSTALLABLE)
    conclude("gateway", rows, bars)
    for name, what in BOUND_BY.items():
        print(f"{name} is bound by {what}.")


if __name__ == "__main__":
    main()
