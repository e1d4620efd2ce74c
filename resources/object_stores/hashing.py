"""Bytes read once: hashed on a second thread while they are written (hashlib releases the GIL)."""

import itertools
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from io import BufferedIOBase
from pathlib import Path
from types import TracebackType
from typing import Protocol

from resources.object_stores.objects import Moved

BLOCK = 1024 * 1024
"""Bytes of one read; an overlapped copy holds two blocks."""


class Hasher(Protocol):
    """As those of hashlib."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


class Overlapped(AbstractContextManager["Overlapped"]):
    """Updates hashers with one block while the caller does something else with it."""

    def __init__(self, *hashers: Hasher) -> None:
        self._hashers = hashers
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._busy: Future[None] | None = None

    def update(self, block: bytes | memoryview) -> None:
        """Starts on `block`, which must not change before the next call, once the one before is done."""
        self.wait()
        self._busy = self._thread.submit(self._update, block)

    def _update(self, block: bytes | memoryview) -> None:
        for hasher in self._hashers:
            hasher.update(block)

    def wait(self) -> None:
        if self._busy:
            self._busy.result()
            self._busy = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        finally:
            self._thread.shutdown()


def pour(source: BufferedIOBase, target: BufferedIOBase | None, moved: Moved, *hashers: Hasher) -> int:
    """Reads `source` to its end into `hashers` and, where there is one, `target`; the number of bytes."""
    first = source.read(BLOCK)
    for consume in (*(hasher.update for hasher in hashers), *((target.write,) if target else ())):
        consume(first)
    moved(len(first))
    if len(first) < BLOCK:  # a thread costs more than the hash of a small file
        return len(first)
    return len(first) + _pour_blocks(source, target, moved, hashers)


def _pour_blocks(
    source: BufferedIOBase, target: BufferedIOBase | None, moved: Moved, hashers: tuple[Hasher, ...]
) -> int:
    """With two buffers in turn: while one is hashed it is written, and the other filled."""
    size_bytes, buffers = 0, (memoryview(bytearray(BLOCK)), memoryview(bytearray(BLOCK)))
    with Overlapped(*hashers) as overlapped:
        for buffer in itertools.cycle(buffers):
            block = buffer[: source.readinto(buffer)]
            if not block:
                return size_bytes
            overlapped.update(block)
            if target:
                target.write(block)
            moved(len(block))
            size_bytes += len(block)
    raise AssertionError("a cycle has no end")


def hash_file(path: Path, *hashers: Hasher) -> int:
    """Feeds a file to `hashers` in one read; its size."""
    with path.open("rb") as stream:
        return pour(stream, None, lambda _: None, *hashers)
