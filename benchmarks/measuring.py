"""Timing whole commands, and the one table and one JSON file that every benchmark ends with."""

import json
import os
import platform
import statistics
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
SAMPLE_S = 0.25
MOST_COLUMNS = 9


class BenchmarkError(Exception):
    """A command that was to be measured failed."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run of a command: wall seconds, and the largest sum of resident memory of its processes."""

    seconds: float
    peak_bytes: int


def measure(command: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path, mark: Path) -> Measured:
    """Runs a command to its end. Servers that it starts, with files below `mark`, count while it runs.

    Raises:
        BenchmarkError: It failed; the end of its log is in the text.
    """
    started = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=dict(env), cwd=cwd, stdout=output, stderr=output)
        over, peak = threading.Event(), [0]
        watcher = threading.Thread(target=_watch, args=(psutil.Process(process.pid), str(mark), over, peak))
        watcher.start()
        code = process.wait()
        seconds = time.monotonic() - started
    over.set()
    watcher.join()
    if code != 0:
        raise BenchmarkError(f"{' '.join(command)} ended with {code}:\n{log.read_text()[-3000:]}")
    return Measured(seconds=seconds, peak_bytes=peak[0])


def row(system: str, runs: list[Measured]) -> dict[str, Any]:
    """A row of the table: the median of the runs, and their range."""
    seconds = [run.seconds for run in runs]
    return {
        "system": system,
        "seconds": statistics.median(seconds),
        "min_seconds": min(seconds),
        "max_seconds": max(seconds),
        "peak_bytes": max(run.peak_bytes for run in runs),
        "rounds": len(runs),
    }


def _watch(root: psutil.Process, mark: str, over: threading.Event, peak: list[int]) -> None:
    while not over.wait(SAMPLE_S):
        total = 0
        for process in _family(root, mark):
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        peak[0] = max(peak[0], total)


def _family(root: psutil.Process, mark: str) -> set[psutil.Process]:
    """The command, what it started, and servers that left it: they have a path below `mark` in theirs."""
    try:
        family = {root, *root.children(recursive=True)}
    except psutil.NoSuchProcess:
        family = set()
    for process in psutil.process_iter():
        try:
            if any(mark in word for word in process.cmdline()):
                family |= {process, *process.children(recursive=True)}
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return family


def conclude(name: str, rows: Sequence[Mapping[str, Any]], bars: Mapping[str, float]) -> None:
    """Prints the table and writes `benchmarks/results/<name>.json`."""
    table = _table(name, rows) if len(rows[0]) <= MOST_COLUMNS else _turned(name, rows)
    console = Console()
    console.print(table)
    for key, value in bars.items():
        console.print(f"{key}: {value:.3f}")
    content = {"machine": _machine(), "versions": _versions(), "rows": list(rows), "bars": dict(bars)}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def _table(name: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=name)
    for column in rows[0]:
        table.add_column(column, justify="left" if column == "system" else "right")
    for row in rows:
        table.add_row(*(_shown(value) for value in row.values()))
    return table


def _turned(name: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """What was measured in the rows, the systems side by side."""
    measures = [column for column in rows[0] if column != "system"]
    table = Table(title=name)
    table.add_column("", min_width=max(len(measure) for measure in measures))
    for row in rows:
        table.add_column(str(row["system"]), justify="right")
    for measure in measures:
        table.add_row(measure, *(_shown(row[measure]) for row in rows))
    return table


def _shown(value: Any) -> str:
    return (
        f"{value:,.2f}"
        if isinstance(value, float)
        else f"{value:,}"
        if isinstance(value, int)
        else str(value)
    )


def _machine() -> dict[str, Any]:
    memory = psutil.virtual_memory().total
    return {"cores": os.cpu_count(), "memory_bytes": memory, "system": platform.platform(terse=True)}


def _versions() -> dict[str, str]:
    packages = ("dagster", "mlflow", "llm-assets")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
