"""A tenant's chain on the disk: lines, each with the hash of the one before it, in segments.

A line is `{…,"hash":"<64 hex digits>"}`. The hash is the SHA-256 of the line without that last field (so of
the canonical JSON that ends in `}` in its place); `previous` inside is the hash of the line before, `seq`
counts from 1 without a gap, over all segments of the tenant. Anybody can check it with any SHA-256. The last
line of what was written at once has `"batch":"<key id>:<signature>"` before its hash: a signature over the
line without these two fields, which tells it from a line that somebody added behind the signed head.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resources.audit.places import SEQ_DIGITS, AuditError
from resources.audit.statements import canonical

GENESIS = "0" * 64
"""What the first record of a tenant has as `previous`."""

LINES, SEAL, DELETED = ".jsonl", ".seal.json", ".deleted.json"
HEAD = "head.json"
TAIL = len(',"hash":""}') + 64
TAIL_READ = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Segment:
    """The records from `first` on, of one tenant."""

    folder: Path
    first: int

    @property
    def name(self) -> str:
        return f"{self.first:0{SEQ_DIGITS}d}"

    @property
    def path(self) -> Path:
        return self.folder / f"{self.name}{LINES}"

    @property
    def seal(self) -> Path:
        return self.folder / f"{self.name}{SEAL}"

    @property
    def proof(self) -> Path:
        return self.folder / f"{self.name}{DELETED}"


def segments_in(folder: Path, suffix: str = LINES) -> list[Segment]:
    """In the order of the chain."""
    stems = (path.name.removesuffix(suffix) for path in folder.glob(f"*{suffix}"))
    found = [Segment(folder=folder, first=int(stem)) for stem in stems if stem.isdecimal()]
    named = [
        segment for segment in found if (folder / f"{segment.name}{suffix}").is_file()
    ]  # 6.jsonl is none
    return sorted(named, key=lambda segment: segment.first)


def line_of(record: dict[str, object], batch: Callable[[bytes], str] | None = None) -> tuple[bytes, str]:
    """The line and hash of a record with its `seq` and `previous`. `batch` signs the last one of a batch."""
    text = canonical(record)
    if batch is not None:
        text = text[:-1] + b',"batch":"' + batch(text).encode() + b'"}'
    digest = hashlib.sha256(text).hexdigest()
    return text[:-1] + b',"hash":"' + digest.encode() + b'"}\n', digest


def hash_in(line: bytes) -> str:
    """The hash that a line (with or without its newline) claims; '' where there is none."""
    tail = line.rstrip(b"\n")[-TAIL:]
    if len(tail) < TAIL or not tail.startswith(b',"hash":"'):
        return ""
    return tail[len(b',"hash":"') : -2].decode("ascii", "replace")


def record_in(line: bytes) -> dict[str, Any]:
    """Raises: AuditError: It is no record."""
    try:
        record = json.loads(line)
        return dict(record)
    except (ValueError, TypeError, RecursionError) as error:
        raise AuditError(f"it is no record ({error})") from error


def lines_in(path: Path) -> Iterator[bytes]:
    """The whole lines of a segment; a torn last one was never sealed."""
    with path.open("rb") as stream:
        for line in stream:
            if line.endswith(b"\n"):
                yield line


def hash_at(folder: Path, seq: int) -> str:
    """The hash that the record of that number claims; '' where there is none."""
    for segment in reversed(segments_in(folder)):
        if segment.first <= seq:
            for number, line in enumerate(lines_in(segment.path), segment.first):
                if number == seq:
                    return hash_in(line)
            return ""
    return ""


def last_line(path: Path) -> tuple[bytes, int]:
    """The last whole line (b"" for none) and where it ends."""
    size = path.stat().st_size
    wanted = TAIL_READ
    with path.open("rb") as stream:
        while True:
            stream.seek(max(size - wanted, 0))
            content = stream.read(wanted)
            whole = content[: content.rfind(b"\n") + 1]
            end = size - len(content) + len(whole)
            before = whole[:-1].rfind(b"\n")
            if before >= 0 or wanted >= size:
                return whole[before + 1 :], end
            wanted *= 4
