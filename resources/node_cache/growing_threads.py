"""Threads for many files: as many as pay.

Small files from a near store keep one thread busy, and more of them only wait for the interpreter: eight took
half as long again. A store that answers after 30 ms leaves that thread idle. So another one joins when those
that are there have mostly waited since the last one joined.
"""

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from resources.artifact_store.artifacts import ArtifactFile

IDLE = 0.75
"""The share of their time from which on threads have mostly waited."""
IDLE_S = 0.02
"""The least to judge by; a moment without the processor says nothing about the store."""


class Pace:
    """What threads did since another one joined."""

    def __init__(self) -> None:
        self._taken_s = self._idle_s = 0.0

    def waits(self, taken_s: float, used_s: float) -> bool:
        """Whether one more thread pays, after a file that took so long and so much of the processor."""
        self._taken_s += taken_s
        self._idle_s += taken_s - used_s
        if self._idle_s <= max(IDLE_S, IDLE * self._taken_s):
            return False
        self._taken_s = self._idle_s = 0.0
        return True


class GrowingThreads:
    """Carries out `work` for each file; `first` threads begin, at most `most` are there."""

    def __init__(
        self, work: Callable[[ArtifactFile], None], files: Iterable[ArtifactFile], *, first: int, most: int
    ) -> None:
        self._work, self._files, self._most = work, iter(files), most
        self._pool = ThreadPoolExecutor(max_workers=most, thread_name_prefix="node-cache")
        self._lock = threading.Lock()
        self._threads: list[Future[None]] = []
        self._over, self._pace = False, Pace()
        for _ in range(first):
            self._join()

    def wait(self) -> None:
        """Returns when every file is done. Raises what the first that failed raised."""
        while at_work := [thread for thread in self._threads if not thread.done()]:
            for ended in wait(at_work, return_when=FIRST_COMPLETED).done:
                ended.result()
        for thread in self._threads:
            thread.result()

    def close(self) -> None:
        """Returns when no thread is at work any more: at the end of the files, or of their own accord."""
        with self._lock:
            self._over = True
        self._pool.shutdown(cancel_futures=True)

    def _join(self) -> None:
        if not self._over and len(self._threads) < self._most:
            self._threads.append(self._pool.submit(self._each))

    def _each(self) -> None:
        for file in self._files:
            began, used = time.monotonic(), time.thread_time()
            self._work(file)
            took_s, used_s = time.monotonic() - began, time.thread_time() - used
            with self._lock:
                if self._pace.waits(took_s, used_s):
                    self._join()
