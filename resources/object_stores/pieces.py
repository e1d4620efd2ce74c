"""Large objects in pieces, a few at once, in order: retried piece by piece, hashed on the way, in bounded memory.

One transfer holds at most `AT_ONCE` pieces of `PIECE_BYTES` (32 MiB), so eight threads that transfer at once hold
256 MiB, however large the files are.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from resources.object_stores.free_space import disk_errors_named
from resources.object_stores.hashing import pour
from resources.object_stores.objects import Moved, Transferred

T = TypeVar("T")
Task = Callable[[], T]

PIECE_BYTES = 8 * 1024 * 1024
AT_ONCE = 4
THREADS = 16
"""Requests for pieces that one store has under way, whatever the number of transfers."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some bytes of an object, and how many it has in all. Empty: there are none from that offset on."""

    content: bytes
    object_bytes: int


ReadRange = Callable[[int, int], Part]
"""Reads at most that many (second) bytes from that offset (first) on, with retries."""


class Workers:
    """The threads of one store; they end with the process and hold nothing while idle."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="object-store")

    def in_order(self, tasks: Iterable[Task[T]]) -> Iterator[T]:
        """The results of `tasks` in their order, while at most `AT_ONCE` of them are under way or waiting."""
        window: deque[Future[T]] = deque()
        try:
            for task in tasks:
                window.append(self._pool.submit(task))
                if len(window) == AT_ONCE:
                    yield window.popleft().result()
            while window:
                yield window.popleft().result()
        finally:
            for future in window:
                future.cancel()


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


def _parts(read_range: ReadRange, start: int, workers: Workers) -> Iterator[bytes]:
    """The first piece tells how large the object is; small ones end there, with one request in all."""
    first = read_range(start, PIECE_BYTES)
    yield first.content
    rest = range(start + len(first.content), first.object_bytes, PIECE_BYTES)
    size = first.object_bytes
    del first
    tasks = (lambda at=at: read_range(at, min(PIECE_BYTES, size - at)).content for at in rest)
    yield from workers.in_order(tasks)
