"""What a run looks like in a terminal: a line a step, the engine's progress under the one at work.

Reads the run's event log as it grows, so it shows the same for a run of this process and of another.
"""

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import dagster as dg
from dagster import DagsterEventType
from dagster._core.events.log import EventLogEntry  # what get_records_for_run gives; not re-exported
from rich.text import Text

from llm_assets.cli.display import Display, Work, done_line

POLL_S = 0.3
NOISE = re.compile(r"\[pipes\]|^Started|^Finished|^Loaded|^Handled|^Executing|^Launching|^Ignoring")
Starts = Mapping[str, Callable[[], None]]
ENDED = (DagsterEventType.STEP_SUCCESS, DagsterEventType.STEP_FAILURE)


class Progress:
    """Follows one run and shows its steps on `display`; does what `starts` has for a step that begins."""

    def __init__(self, instance: dg.DagsterInstance, run_id: str, display: Display, starts: Starts) -> None:
        self._instance, self._run_id, self._display, self._starts = instance, run_id, display, starts
        self._starting = display.begin("starting")
        self._cursor: str | None = None
        self._steps: dict[str, Work] = {}
        self._checks: dict[str, list[Text]] = {}

    def catch_up(self) -> None:
        while True:
            page = self._instance.get_records_for_run(self._run_id, self._cursor)
            for record in page.records:
                self._take(record.event_log_entry)
            self._cursor = page.cursor
            if not page.has_more:
                return

    def end(self) -> None:
        """Whatever the run said of its end, nothing is at work any more."""
        for work in (self._starting, *self._steps.values()):
            self._display.end(work)

    def _take(self, entry: EventLogEntry) -> None:
        event, key = entry.dagster_event, entry.step_key
        if key is None:
            return
        if event is None:
            if key in self._steps and not NOISE.search(entry.user_message):
                self._display.say(self._steps[key], entry.user_message)
        elif event.event_type == DagsterEventType.STEP_START:
            self._begin(key, entry.timestamp)
        elif event.event_type == DagsterEventType.ASSET_CHECK_EVALUATION:
            self._checks.setdefault(key, []).append(_check_line(event))
        elif event.event_type in ENDED:
            failed = event.event_type == DagsterEventType.STEP_FAILURE
            self._end(key, entry.timestamp, failed=failed)

    def _begin(self, key: str, at: float) -> None:
        self._display.end(self._starting)
        step = self._steps[key] = self._display.begin(key.replace("__", "/"), at)
        if step.name in self._starts:
            self._starts[step.name]()

    def _end(self, key: str, at: float, *, failed: bool) -> None:
        """A step of checks shows what they found, any other one how long it took and what it said last."""
        step = self._steps.pop(key)
        said = "" if failed else step.said
        lines = self._checks.get(key) or [done_line(step.name, at - step.started, said, failed=failed)]
        self._display.end(step, *lines)


def _check_line(event: dg.DagsterEvent) -> Text:
    """What a check found; one that is not severe only warns."""
    found = event.asset_check_evaluation_data
    failed = ("✗", "bold red") if found.severity == dg.AssetCheckSeverity.ERROR else ("!", "yellow")
    mark, style = ("✓", "green") if found.passed else failed
    why = f"{found.check_name.replace('_', ' ')}: {found.description or ''}"
    return Text.assemble((f"      {mark} ", style), (why, "dim" if found.passed else style))


@contextmanager
def followed(instance: dg.DagsterInstance, run_id: str, display: Display, starts: Starts) -> Iterator[None]:
    """Shows the run on `display` while the block executes it."""
    progress = Progress(instance, run_id, display, starts)
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(progress, over), daemon=True)
    with display.shown():
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join(timeout=10)


def _watch(progress: Progress, over: threading.Event) -> None:
    last = False
    while not last:
        last = over.wait(POLL_S)
        progress.catch_up()
    progress.end()
