"""Large objects in chunks, a few at once, in order: retried one by one, hashed on the way, in bounded memory.

The first 64 MiB of a download stream to the disk. Beyond them, and in uploads to S3, each transfer holds one
chunk of 16 MiB, and all transfers of one store together at most eight further ones that run ahead. No more
than eight downloads are beyond their first 64 MiB at once. So downloads from any number of threads, or
uploads from eight, hold 256 MiB at most, however large the files are.
"""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from resources.object_stores.free_space import disk_errors_named
from resources.object_stores.hashing import hash_file
from resources.object_stores.objects import Moved, Transferred
from resources.object_stores.retries import Retries, retried

T = TypeVar("T")
Task = Callable[[], T]

STREAMED_BYTES = 64 * 1024 * 1024
"""Of each object, the first so many come in one request and go to the disk as they arrive."""
CHUNK_BYTES = 16 * 1024 * 1024
AHEAD = 8
"""Chunks that run ahead of what their transfers use just now, in one store."""
LARGE_AT_ONCE = 8
"""Downloads of one store that are beyond what streams."""
THREADS = 16
"""Requests for chunks that one store has under way, whatever the number of transfers."""


Take = Callable[[bytes], object]
"""Told each block of a body as it arrives."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One object of a store, to be read by ranges.

    Attributes:
        stream: One try: from an offset on, gives at most so many bytes to the third argument. Returns the
        size
            of the whole object, or the offset where nothing is from there on. Raises Passing when it breaks
            off.
        doing: The start of the errors: "The object store gs://… could not read 'a/b'".
    """

    stream: Callable[[int, int, Take], int]
    retries: Retries
    doing: str


class Workers:
    """The threads of one store."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="object-store")
        self._ahead = threading.Semaphore(AHEAD)
        self.large = threading.Semaphore(LARGE_AT_ONCE)

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


def read(reading: Reading) -> bytes:
    """A small object, in memory."""
    content, object_bytes = bytearray(), 1
    while len(content) < object_bytes:
        chunk, object_bytes = _chunk(reading, len(content), CHUNK_BYTES)
        content += chunk
    return bytes(content)


def download(reading: Reading, target: Path, moved: Moved, workers: Workers) -> Transferred:
    """Appends the object's bytes to `target`, behind those that are there already.

    `target` is not synced: whoever relies on it after a power cut must do so.

    Raises:
        ObjectStoreError: `target` cannot be written, or the object cannot be read.
    """
    hasher = hashlib.sha256()
    disk = f"the folder {target.parent}"
    with (
        disk_errors_named(f"{reading.doing} into {target}", disk=disk, path=target.parent),
        target.open("ab") as written,
    ):
        there = hash_file(target, hasher) if written.tell() else 0

        def take(block: bytes | bytearray) -> None:
            nonlocal there
            hasher.update(block)
            written.write(block)
            there += len(block)
            moved(len(block))

        end = there + STREAMED_BYTES
        object_bytes = retried(
            lambda: reading.stream(there, end - there, take), retries=reading.retries, doing=reading.doing
        )
        if there < object_bytes:
            with workers.large:
                for chunk, _ in workers.in_order(_tasks(reading, there, object_bytes)):
                    take(chunk)
    return Transferred(size_bytes=there, sha256=hasher.hexdigest())


def _tasks(reading: Reading, start: int, object_bytes: int) -> Iterator[Task[tuple[bytearray, int]]]:
    for at in range(start, object_bytes, CHUNK_BYTES):
        yield partial(_chunk, reading, at, min(CHUNK_BYTES, object_bytes - at))


def _chunk(reading: Reading, start: int, size: int) -> tuple[bytearray, int]:
    """Some bytes, and how many the object has in all."""

    def attempt() -> tuple[bytearray, int]:
        content = bytearray()
        object_bytes = reading.stream(start, size, content.extend)
        return content, object_bytes

    return retried(attempt, retries=reading.retries, doing=reading.doing)
