"""Large objects in pieces, a few at once, in order: retried one by one, hashed on the way, in bounded memory.

Each transfer holds one piece of 16 MiB, and all transfers of one store together at most eight further ones
that run ahead: eight threads that transfer at once hold 256 MiB at most, however large the files are.
"""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from resources.object_stores.free_space import disk_errors_named
from resources.object_stores.hashing import pour
from resources.object_stores.objects import Moved, Transferred

T = TypeVar("T")
Task = Callable[[], T]

PIECE_BYTES = 16 * 1024 * 1024
AHEAD = 8
"""Pieces that run ahead of what their transfers use just now, in one store."""
THREADS = 16
"""Requests for pieces that one store has under way, whatever the number of transfers."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some bytes of an object, and how many it has in all. Empty: there are none from that offset on."""

    content: bytes | bytearray
    object_bytes: int


ReadRange = Callable[[int, int], Part]
"""Reads at most that many (second) bytes from that offset (first) on, with retries."""


class Workers:
    """The threads of one store."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="object-store")
        self._ahead = threading.Semaphore(AHEAD)

    def close(self) -> None:
        self._pool.shutdown(wait=False)

    def in_order(self, tasks: Iterable[Task[T]]) -> Iterator[T]:
        """The results of `tasks` in their order; some run ahead, as far as the store's bound allows."""
        window: deque[Future[T]] = deque()
        ahead = 0
        try:
            for task in tasks:
                while window and not self._ahead.acquire(blocking=False):
                    yield window.popleft().result()
                    ahead -= self._one_less(window)
                ahead += bool(window)
                window.append(self._pool.submit(task))
            while window:
                yield window.popleft().result()
                ahead -= self._one_less(window)
        finally:
            for future in window:
                future.cancel()
            wait(window)  # what runs already would outlive its transfer, and its upload
            for _ in range(ahead):
                self._ahead.release()

    def _one_less(self, window: "deque[Future[T]]") -> int:
        """The oldest of the rest is ahead no more."""
        if window:
            self._ahead.release()
        return int(bool(window))


def download(
    read_range: ReadRange, target: Path, moved: Moved, *, workers: Workers, doing: str
) -> Transferred:
    """Appends the object's bytes to `target`, behind those that are there already.

    `target` is not synced: whoever relies on it after a power cut must do so.

    Raises:
        ObjectStoreError: `target` cannot be written; and whatever `read_range` raises.
    """
    hasher = hashlib.sha256()
    with (
        disk_errors_named(f"{doing} into {target}", disk=f"the folder {target.parent}", path=target.parent),
        target.open("a+b") as written,
    ):
        written.seek(0)
        size_bytes = pour(written, None, lambda _: None, hasher)
        for part in _parts(read_range, size_bytes, workers):
            hasher.update(part)
            written.write(part)
            size_bytes += len(part)
            moved(len(part))
    return Transferred(size_bytes=size_bytes, sha256=hasher.hexdigest())


def _parts(read_range: ReadRange, start: int, workers: Workers) -> Iterator[bytes | bytearray]:
    """The first piece tells how large the object is; small ones end there, with one request in all."""
    first = read_range(start, PIECE_BYTES)
    yield first.content
    rest = range(start + len(first.content), first.object_bytes, PIECE_BYTES)
    size = first.object_bytes
    del first
    tasks = (lambda at=at: read_range(at, min(PIECE_BYTES, size - at)).content for at in rest)
    yield from workers.in_order(tasks)
