"""A file on its way into a store: hashed in the one read, and begun again anywhere without hashing twice."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from resources.object_stores.free_space import disk_errors_named
from resources.object_stores.hashing import Hasher
from resources.object_stores.objects import Moved, Transferred
from resources.object_stores.retries import Clock, Retries

SEND_BLOCK = 256 * 1024
"""Bytes handed to the socket at once: the memory of one upload."""


class Sending:
    """The blocks of `source`, for as many tries as it takes."""

    def __init__(self, source: Path, moved: Moved, retries: Retries, *hashers: Hasher) -> None:
        self._source, self._moved, self._retries = source, moved, retries
        self._sha256 = hashlib.sha256()
        self._hashers = (self._sha256, *hashers)
        self._hashed = self._told = 0
        self._finished = False
        self.size_bytes = source.stat().st_size

    @property
    def transferred(self) -> Transferred | None:
        """What the file is, once it was read to its end."""
        if not self._finished:
            return None
        return Transferred(size_bytes=self._hashed, sha256=self._sha256.hexdigest())

    def blocks(self, start: int = 0) -> Iterator[bytes]:
        """From the offset `start` on, which must not lie behind what was read before.

        Raises:
            ObjectStoreError: The file cannot be read; urllib3 would take an OSError for a broken connection.
        """
        clock, at = Clock(self._retries, self.size_bytes - start), start
        reading = f"The file {self._source} could not be read"
        with (
            disk_errors_named(reading, disk=f"the folder {self._source.parent}", path=self._source.parent),
            self._source.open("rb") as stream,
        ):
            stream.seek(start)
            while block := stream.read(SEND_BLOCK):
                clock.check()
                self._hash(block, at)
                yield block
                at += len(block)
                self._tell(at)
        self._finished = True

    def _hash(self, block: bytes, at: int) -> None:
        """Hashes what of `block` was not read before."""
        new = at + len(block) - self._hashed
        if new > 0:
            for hasher in self._hashers:
                hasher.update(block[-new:])
            self._hashed += new

    def _tell(self, sent: int) -> None:
        """Tells what was not sent before."""
        if sent > self._told:
            self._moved(sent - self._told)
            self._told = sent
