"""Whether a stored object has a file's bytes, told by the checksum that its store keeps.

CRC32C alone does not count: with 32 bits, different files of one size may well have the same.
"""

import hashlib
from pathlib import Path

from resources.object_stores.hashing import Hasher, hash_file
from resources.object_stores.objects import StoredObject, Transferred

S3_PARTS = "s3_parts"
"""The checksum of an S3 object uploaded in parts: the MD5 of their MD5s, a hyphen, their number."""
S3_MOST_PARTS = 10_000
S3_PART_BYTES = 8 * 1024 * 1024
S3_COPIED_PART_BYTES = 512 * 1024 * 1024
MIB = 1024 * 1024


def matching(stored: StoredObject, source: Path) -> Transferred | None:
    """One read of `source`: what it holds, if `stored` holds the same; else, or without proof, None."""
    if source.stat().st_size != stored.size_bytes:
        return None
    sha256 = hashlib.sha256()
    for name, hasher in _proofs(stored):
        if name in stored.checksums:
            size_bytes = hash_file(source, sha256, hasher)
            same = hasher.hexdigest() == stored.checksums[name]
            return Transferred(size_bytes=size_bytes, sha256=sha256.hexdigest()) if same else None
    return None


def _proofs(stored: StoredObject) -> list[tuple[str, Hasher]]:
    """Of the checksums that a store may have, the strongest first."""
    return [
        ("sha256", hashlib.sha256()),
        ("sha1", hashlib.sha1(usedforsecurity=False)),
        ("md5", hashlib.md5(usedforsecurity=False)),
        (S3_PARTS, PartsMd5(_part_bytes(stored))),
    ]


def _part_bytes(stored: StoredObject) -> int:
    """Of one part of this object: as this program uploads, or, if their number says so, as it copies."""
    parts = stored.checksums.get(S3_PARTS, "").rpartition("-")[2]
    copied = -(-stored.size_bytes // S3_COPIED_PART_BYTES)
    return S3_COPIED_PART_BYTES if parts == str(copied) else s3_part_bytes(stored.size_bytes)


def s3_part_bytes(size_bytes: int) -> int:
    """Of one part: 8 MiB, and more MiB for an object that would have more than 10,000 of them."""
    smallest = -(-size_bytes // S3_MOST_PARTS)
    return max(S3_PART_BYTES, -(-smallest // MIB) * MIB)


class PartsMd5:
    """The ETag that S3 gives to an object uploaded in parts of `part_bytes`."""

    def __init__(self, part_bytes: int) -> None:
        self._part_bytes = part_bytes
        self._parts: list[bytes] = []
        self._part = hashlib.md5(usedforsecurity=False)
        self._room = part_bytes

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        rest = memoryview(data)
        while rest:
            self._part.update(rest[: self._room])
            taken = min(self._room, len(rest))
            self._room -= taken
            rest = rest[taken:]
            if not self._room:
                self._end_part()

    def hexdigest(self) -> str:
        if self._room != self._part_bytes:
            self._end_part()
        whole = hashlib.md5(b"".join(self._parts), usedforsecurity=False).hexdigest()
        return f"{whole}-{len(self._parts)}"

    def _end_part(self) -> None:
        self._parts.append(self._part.digest())
        self._part = hashlib.md5(usedforsecurity=False)
        self._room = self._part_bytes
