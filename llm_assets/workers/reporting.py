"""What a worker tells the platform, through Dagster Pipes, and how it ends.

`{"progress": …}` at most about once a second, log lines that a person reads, then one `{"result": …}` or one
`{"failure": "cause"}`. Exit code 0 with a result, 1 with a failure, 143 when it was asked to stop by SIGTERM;
what was written up to then stays. Files that are whole are listed in a file beside the output (merges only).
"""

import contextlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dagster_pipes import PipesContext, open_dagster_pipes

from llm_assets.workers import checkpoints
from llm_assets.workers.failures import cause_of, is_full_disk

PROGRESS_EVERY_S = 1.0
EXIT_FAILED = 1
EXIT_TERMINATED = 128 + signal.SIGTERM

Order = Mapping[str, Any]
Result = dict[str, Any]


class Report:
    """The line back to the run that asked for the work."""

    def __init__(self, pipes: PipesContext, whole_files: Path) -> None:
        self._pipes, self._whole_files = pipes, whole_files
        self._last_progress = 0.0

    def line(self, text: str) -> None:
        """A line for people, shown in the run's log as it comes."""
        self._pipes.log.info(text)

    def progress(self, values: Mapping[str, Any], *, last: bool = False) -> None:
        """How far the work is. Dropped when another is less than a second old; never the `last`."""
        now = time.monotonic()
        if last or now - self._last_progress >= PROGRESS_EVERY_S:
            self._last_progress = now
            self._pipes.report_custom_message({"progress": dict(values)})

    def file(self, values: Mapping[str, Any]) -> None:
        """A file of the output folder that is whole (path in it, size_bytes, sha256): it is sent on, and must
        not change any more.
        """
        with self._whole_files.open("a", encoding="utf-8") as listing:
            listing.write(json.dumps(dict(values)) + "\n")

    def result(self, values: Result) -> None:
        self._pipes.report_custom_message({"result": values})

    def failure(self, cause: str) -> None:
        self._pipes.log.error(cause)
        self._pipes.report_custom_message({"failure": cause})


def work(run: Callable[[Order, Report], Result]) -> None:
    """A worker's main: takes the order from Dagster Pipes, runs it, reports, and ends the process."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(EXIT_TERMINATED))
    with open_dagster_pipes() as pipes:
        given = pipes.get_extra("order")
        order, report = as_worker_reads(given), Report(pipes, Path(given["whole_files"]))
        try:
            report.result(run(order, report))
        except Exception as error:  # noqa: BLE001  the boundary: whatever the engine raises is told in one line
            cause = cause_of(error, Path(order["scratch_folder"]))
            if is_full_disk(error):
                make_room(order)
            traceback.print_exc()
            report.failure(cause)
            pipes.close()
            sys.exit(EXIT_FAILED)


def as_worker_reads(given: Mapping[str, Any]) -> Order:
    """In one mapping: the params; of each input `<name>_folder` and `<name>_files`, the SHA-256 by file name;
    `output_folder` and `scratch_folder`, as an earlier try left them.
    """
    folders = {f"{name}_folder": folder for name, folder in given["inputs"].items()}
    files = {f"{name}_files": sha256 for name, sha256 in given["input_files"].items()}
    places = {key: given[key] for key in ("output_folder", "scratch_folder")}
    return {**given["params"], **folders, **files, **places}


def make_room(order: Order) -> None:
    """On a full disk not even the cause could be told: what the next try would remove goes now."""
    with contextlib.suppress(OSError):  # the cause is what has to be told
        checkpoints.drop_unfinished(Path(order["scratch_folder"]))
    shutil.rmtree(order["output_folder"], ignore_errors=True)
