"""What runs under `llm-assets up` is started again when it dies, later each time it dies soon.

A part that cannot be started holds up no other: it is named, and tried again. What happened is written to
`supervision.json` in the state folder, where `llm-assets status` reads it.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from resources.durable_files import replace_json
from resources.errors import LlmAssetsError
from resources.processes.launcher import process_identity
from resources.waiting import wait_until

FIRST_DELAY_S = 1.0
LAST_DELAY_S = 60.0
STEADY_S = 60.0
"""A part that ran for so long begins anew with the first delay."""
STARTS_AT_ONCE = 2
"""A starting vLLM takes the memory of its model: more would not start sooner."""
STATE_FILE = "supervision.json"
END_UP_S = 180  # it ends every server, and a start that is under way


class SupervisionError(LlmAssetsError):
    """Another command supervises the same parts."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Something that should be running.

    `fault` says why it is not, None while it is. `start` may take minutes; of what it raises, `faults` are
    tried again, and any other is a mistake in the program and ends the supervision.
    """

    name: str
    fault: Callable[[], str | None]
    start: Callable[[], object]
    faults: tuple[type[Exception], ...]


def first_fault(parts: Iterable[Part]) -> str | None:
    return next((fault for part in parts if (fault := part.fault())), None)


@dataclass(frozen=True, kw_only=True)
class Restarts:
    """What happened to one part since `up` began; times in epoch seconds.

    `next_at` is None while it runs or is being started. `fault` is the last one.
    """

    name: str
    count: int
    fault: str
    died_at: float
    next_at: float | None

    @property
    def text(self) -> str:
        times = "once" if self.count == 1 else f"{self.count} times"
        if self.next_at is not None:
            wait_s = max(0, self.next_at - time.time())
            return f"{self.fault} It was started again {times}; the next try is in {wait_s:.0f} s."
        when = time.strftime("%H:%M:%S", time.localtime(self.died_at))
        return f"{self.name} was started again {times}, the last time at {when}: {self.fault}"


@dataclass(kw_only=True)
class _Watch:
    """One part's state between two looks; times by the monotonic clock."""

    delay_s: float = FIRST_DELAY_S
    due: float | None = None
    started: float | None = None
    starting: Future[None] | None = None


@dataclass(kw_only=True)
class Supervision:
    """Looks at all parts each time `look` is called; each death and each failed start is a sentence to `say`.

    `begin` before the first look, `end` after the last one.
    """

    home: Path
    say: Callable[[str], None]
    _watches: dict[str, _Watch] = field(default_factory=dict)
    _restarts: dict[str, Restarts] = field(default_factory=dict)
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(STARTS_AT_ONCE))

    def begin(self) -> None:
        """Raises:
        SupervisionError: Another `up` looks after this state folder.
        """
        if supervised(self.home) is not None:
            raise SupervisionError(
                f"`llm-assets up` runs already for {self.home}. End that one, or set LLM_ASSETS_HOME to "
                "another folder."
            )
        self._write()

    def end(self, stop: Callable[[], None]) -> None:
        """Stops all parts, also those that were being started, and forgets what happened to them."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        stop()
        if any(watch.starting and not watch.starting.done() for watch in self._watches.values()):
            self._threads.shutdown()
            stop()  # a start that was just beginning came after the first one
        (self.home / STATE_FILE).unlink(missing_ok=True)

    def look(self, parts: Iterable[Part]) -> None:
        """Starts what is due. Raises what a start was not expected to raise."""
        for part in parts:
            self._look_at(part, self._watches.setdefault(part.name, _Watch()), time.monotonic())

    def _look_at(self, part: Part, watch: _Watch, now: float) -> None:
        if watch.starting:
            if not watch.starting.done():
                return
            watch.starting.result()
            watch.starting = None
            watch.started = time.monotonic()
            return
        fault = part.fault()
        if fault is None:
            if watch.due is not None:  # somebody else started it
                watch.due = None
                self._note(part.name, next_at=None)
            if watch.started is not None and now - watch.started > STEADY_S:
                watch.delay_s = FIRST_DELAY_S
            return
        if watch.due is None:
            watch.due = now + watch.delay_s
            self.say(f"{fault} It is started again in {watch.delay_s:g} s.")
            self._note(part.name, fault=fault, next_at=time.time() + watch.delay_s)
            watch.delay_s = min(2 * watch.delay_s, LAST_DELAY_S)
        elif now >= watch.due:
            watch.due = None
            self._note(part.name, next_at=None, starts=1)
            watch.starting = self._threads.submit(self._start, part)

    def _start(self, part: Part) -> None:
        try:
            part.start()
        except part.faults as fault:
            self.say(f"{part.name} could not be started: {fault}")

    def _note(self, name: str, *, next_at: float | None, fault: str | None = None, starts: int = 0) -> None:
        before = self._restarts.get(name)
        died_at = time.time() if fault else before.died_at if before else time.time()
        self._restarts[name] = Restarts(
            name=name,
            count=(before.count if before else 0) + starts,
            fault=fault or (before.fault if before else ""),
            died_at=died_at,
            next_at=next_at,
        )
        self._write()

    def _write(self) -> None:
        own, parts = os.getpid(), tuple(self._restarts.values())
        state = _State(pid=own, identity=process_identity(own), parts=parts)
        replace_json(self.home / STATE_FILE, asdict(state))


def end_up(home: Path) -> None:
    """Ends the `up` that looks after this state folder, as Ctrl-C does, and returns when it is gone.

    Raises:
        WaitTimeout: It takes too long; names its pid.
    """
    if (pid := _running_up(home)) is None:
        return
    with suppress(ProcessLookupError):  # it has just ended
        os.kill(pid, signal.SIGTERM)
    wait_until(
        lambda: _running_up(home) is None,
        what=f"the end of `llm-assets up` (pid {pid})",
        timeout_s=END_UP_S,
    )


def supervised(home: Path) -> tuple[Restarts, ...] | None:
    """What was started again since `up` began; None where no `up` runs on this state folder."""
    state = _state(home)
    return None if state is None else state.parts


def _running_up(home: Path) -> int | None:
    state = _state(home)
    return None if state is None else state.pid


@dataclass(frozen=True, kw_only=True)
class _State:
    """What `up` writes: who it is, and what it started again."""

    pid: int
    identity: str | None
    parts: tuple[Restarts, ...]


def _state(home: Path) -> _State | None:
    """What a running `up` wrote last; what a killed one left counts for nothing."""
    try:
        written = json.loads((home / STATE_FILE).read_text())
    except FileNotFoundError:
        return None
    parts = tuple(Restarts(**each) for each in written["parts"])
    state = _State(pid=written["pid"], identity=written["identity"], parts=parts)
    return state if process_identity(state.pid) == state.identity else None
