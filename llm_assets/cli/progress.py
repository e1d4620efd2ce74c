"""What a run looks like in a terminal: a line a step, the engine's progress under the one at work.

Reads the run's event log as it grows, so it shows the same for a run of this process and of another.
"""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import dagster as dg
from dagster import DagsterEventType
from dagster._core.events.log import EventLogEntry  # what get_records_for_run gives; not re-exported
from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

POLL_S = 0.3
NOISE = re.compile(r"\[pipes\]|^Started|^Finished|^Loaded|^Handled|^Executing|^Launching|^Ignoring")


@dataclass
class Step:
    """One step of the chain as it is shown."""

    name: str
    started: float
    seconds: float | None = None
    failed: bool = False
    said: str = ""
    checks: list["Check"] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Check:
    """What a check found; one that is not `severe` only warns."""

    name: str
    passed: bool
    severe: bool
    why: str


class Progress:
    """Follows one run; `lines` is what is shown."""

    def __init__(self, instance: dg.DagsterInstance, run_id: str) -> None:
        self._instance, self._run_id = instance, run_id
        self._cursor: str | None = None
        self.steps: dict[str, Step] = {}
        self.unread: list[str] = []

    def catch_up(self) -> None:
        while True:
            page = self._instance.get_records_for_run(self._run_id, self._cursor)
            for record in page.records:
                self._take(record.event_log_entry)
            self._cursor = page.cursor
            if not page.has_more:
                return

    def _take(self, entry: EventLogEntry) -> None:
        event = entry.dagster_event
        if event is None:
            if entry.step_key in self.steps and not NOISE.search(entry.user_message):
                step = self.steps[entry.step_key]
                step.said = next(iter(entry.user_message.splitlines()), "")
                self.unread.append(f"    {step.name}: {step.said}")
            return
        if event.step_key is None:
            return
        if event.event_type == DagsterEventType.STEP_START:
            self.steps[event.step_key] = Step(name=_readable(event.step_key), started=entry.timestamp)
        elif event.event_type == DagsterEventType.ASSET_CHECK_EVALUATION:
            evaluation = event.asset_check_evaluation_data
            owner = self.steps[event.step_key]
            owner.checks.append(
                Check(
                    name=evaluation.check_name.replace("_", " "),
                    passed=evaluation.passed,
                    severe=evaluation.severity == dg.AssetCheckSeverity.ERROR,
                    why=evaluation.description or "",
                )
            )
        elif event.event_type in (DagsterEventType.STEP_SUCCESS, DagsterEventType.STEP_FAILURE):
            step = self.steps[event.step_key]
            step.seconds = entry.timestamp - step.started
            step.failed = event.event_type == DagsterEventType.STEP_FAILURE

    def finished(self) -> Iterator[Text]:
        for step in self.steps.values():
            if step.seconds is not None:
                yield _line(step)

    def working(self) -> list[Step]:
        return [step for step in self.steps.values() if step.seconds is None]


def _readable(step_key: str) -> str:
    return step_key.replace("__", "/")


def _line(step: Step) -> Text:
    if step.checks:
        return Text("\n").join(_check_line(check) for check in step.checks)
    mark, style = ("✗", "bold red") if step.failed else ("✓", "bold green")
    text = Text.assemble(
        (f"  {mark} ", style), (f"{step.name:<34}", "bold"), (f"{step.seconds or 0:>7.1f} s", "cyan")
    )
    if step.said and not step.failed:
        text.append(f"   {step.said}", style="dim")
    return text


def _check_line(check: Check) -> Text:
    failed = ("✗", "bold red") if check.severe else ("!", "yellow")
    mark, style = ("✓", "green") if check.passed else failed
    return Text.assemble(
        (f"      {mark} ", style), (f"{check.name}: {check.why}", "dim" if check.passed else style)
    )


@contextmanager
def shown(instance: dg.DagsterInstance, run_id: str, console: Console) -> Iterator[None]:
    """Shows the run on `console` while the block executes it."""
    progress = Progress(instance, run_id)
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(progress, console, over), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join(timeout=10)


def _watch(progress: Progress, console: Console, over: threading.Event) -> None:
    printed = 0
    with Live(console=console, transient=True, refresh_per_second=6) as live:
        while True:
            last = over.wait(POLL_S)
            progress.catch_up()
            if not console.is_terminal:  # no live line there: every message is a line of its own
                for message in progress.unread:
                    console.print(message, highlight=False, markup=False, soft_wrap=True)
            progress.unread.clear()
            lines = list(progress.finished())
            for line in lines[printed:]:
                _print(live.console, line)
            printed = len(lines)
            live.update(Group(*(_spinner(step) for step in progress.working())))
            if last:
                return


def _print(console: Console, line: Text) -> None:
    """A terminal cuts a line that is too long; a file gets all of it."""
    if console.is_terminal:
        console.print(line, no_wrap=True, overflow="ellipsis")
    else:
        console.print(line, soft_wrap=True)


def _spinner(step: Step) -> Spinner:
    seconds = time.time() - step.started
    text = Text.assemble(
        (f"{step.name:<34}", "bold"), (f"{seconds:>7.0f} s", "cyan"), (f"   {step.said}", "")
    )
    return Spinner("dots", text=text)
