"""What is at work now, a moving line each, below a line for each thing that is done.

Without a terminal nothing moves: what a work says becomes a line of its own, as it says it.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.text import Text

FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
FRAMES_PER_S = 8
ECHOED = len("^C" * 4)
"""Columns that stay free: a terminal echoes Ctrl-C, and an echo that wraps would leave a line behind."""


@dataclass(eq=False)
class Work:
    """One thing that is at work: since when, and what it said last."""

    name: str
    started: float
    said: str = ""

    def line(self, now: float) -> Text:
        """What moves in a terminal."""
        frame = FRAMES[int(now * FRAMES_PER_S) % len(FRAMES)]
        return Text.assemble(
            (f"  {frame} ", "green"),
            (f"{self.name:<34}", "bold"),
            (f"{now - self.started:>7.0f} s", "cyan"),
            (f"   {self.said}", ""),
            no_wrap=True,
            overflow="ellipsis",
        )


def done_line(name: str, seconds: float, said: str = "", *, failed: bool = False) -> Text:
    """What stays of a work that has ended."""
    mark, style = ("✗", "bold red") if failed else ("✓", "bold green")
    text = Text.assemble((f"  {mark} ", style), (f"{name:<34}", "bold"), (f"{seconds:>7.1f} s", "cyan"))
    return text.append(f"   {said}", style="dim") if said else text


class Display:
    """The lines of a command that is at work; threads may use it at once."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._at_work: list[Work] = []
        self._lock = threading.Lock()
        self._live = Live(
            console=console,
            get_renderable=self._lines,
            transient=True,
            refresh_per_second=FRAMES_PER_S,
            redirect_stdout=False,  # what a step prints belongs into its log
            redirect_stderr=False,
        )

    @contextmanager
    def shown(self) -> Iterator["Display"]:
        """Shows the moving lines while the block runs; one that is shown already goes on."""
        if self._live.is_started or not self.console.is_terminal:
            yield self
            return
        with self._live:
            yield self

    def begin(self, name: str, started: float | None = None) -> Work:
        work = Work(name=name, started=time.time() if started is None else started)
        with self._lock:
            self._at_work.append(work)
        return work

    def say(self, work: Work, message: str) -> None:
        """What the work is at; only the first line is shown."""
        work.said = next(iter(message.splitlines()), "")
        if not self.console.is_terminal:
            self.console.print(f"    {work.name}: {work.said}", markup=False)

    def end(self, work: Work, *lines: Text) -> None:
        """The work is over; `lines` stay."""
        with self._lock:
            if work in self._at_work:
                self._at_work.remove(work)
        for line in lines:
            self.console.print(
                line, no_wrap=True, overflow="ellipsis" if self.console.is_terminal else "ignore"
            )

    @contextmanager
    def at_work(self, name: str) -> Iterator[Work]:
        """One work, from the block's begin to its end; nothing stays of it."""
        work = self.begin(name)
        try:
            yield work
        finally:
            self.end(work)

    def _lines(self) -> Text:
        now = time.time()
        with self._lock:
            lines = [work.line(now) for work in self._at_work]
        for line in lines:
            line.truncate(max(1, self.console.width - ECHOED), overflow="ellipsis")
        return Text("\n", no_wrap=True, overflow="ellipsis").join(lines)
