"""Whether the live servers still answer: looked at again and again, because a process that hangs looks alive.

A server is given up, which means killed, in two cases:
- `/health` was not answered at `UNWELL_LOOKS` looks in a row, over `UNWELL_S` seconds at least: its API
  server is stopped or stuck.
- Somebody asks it, its counters have not moved for `STALLED_S` seconds, and a question for a single token is
  not answered within `QUESTION_S` either: its engine is stopped or stuck. A long queue moves the counters,
  and a client that takes nothing of its answer does not keep the server from answering the question.

Not covered: an engine that hangs while nobody asks it; the next request finds it.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from resources.local.serving.servers import VllmServers
from resources.processes.local_processes import ProcessRecord
from resources.seams.serving import ServingError

UNWELL_S = 30.0
UNWELL_LOOKS = 4
STALLED_S = 60.0
QUESTION_S = 30.0
AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class Unresponsive:
    """A server that is to be given up. `why` is a sentence."""

    server: ProcessRecord
    why: str


@dataclass(kw_only=True)
class _Seen:
    """What was seen of one server; times by the monotonic clock."""

    unwell_looks: int = 0
    unwell_since: float = 0
    counters: str | None = None
    moved_at: float = 0


@dataclass(kw_only=True)
class ServerWatch:
    """`look` at all live servers every few seconds, from one thread."""

    servers: VllmServers
    unwell_s: float = UNWELL_S
    stalled_s: float = STALLED_S
    question_s: float = QUESTION_S
    _seen: dict[str, _Seen] = field(default_factory=dict)
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(AT_ONCE))

    def look(self, running: list[ProcessRecord]) -> Iterator[Unresponsive]:
        """Those of the running servers that are to be given up."""
        self._seen = {
            server.name: self._seen.get(server.name, _Seen(moved_at=time.monotonic())) for server in running
        }
        faults = self._threads.map(self._fault, running)
        for server, why in zip(running, faults, strict=True):
            if why:
                yield Unresponsive(server=server, why=why)

    def close(self) -> None:
        self._threads.shutdown()

    def _fault(self, server: ProcessRecord) -> str | None:
        seen = self._seen[server.name]
        if not self.servers.ready(server):
            return self._unwell(seen)
        seen.unwell_looks = 0
        return self._stalled(server, seen)

    def _unwell(self, seen: _Seen) -> str | None:
        now = time.monotonic()
        if not seen.unwell_looks:
            seen.unwell_since = now
        seen.unwell_looks += 1
        silent_s = now - seen.unwell_since
        if seen.unwell_looks < UNWELL_LOOKS or silent_s < self.unwell_s:
            return None
        return f"it had not answered /health for {silent_s:.0f} s"

    def _stalled(self, server: ProcessRecord, seen: _Seen) -> str | None:
        try:
            with self.servers.client(server) as client:
                counters = client.counters()
        except ServingError:
            return None  # the next look at its health tells
        now = time.monotonic()
        if counters != seen.counters or not self.servers.asked(server):
            seen.counters, seen.moved_at = counters, now
            return None
        if now - seen.moved_at < self.stalled_s or self._answers(server):
            return None
        return f"it was asked and had answered nothing for {time.monotonic() - seen.moved_at:.0f} s"

    def _answers(self, server: ProcessRecord) -> bool:
        try:
            with self.servers.client(server) as client:
                answers = client.answers(server.attributes["model"], timeout_s=self.question_s)
        except ServingError:
            return True  # the next look at its health tells
        if answers:
            self._seen[server.name].moved_at = time.monotonic()
        return answers
