"""The writer of one tenant's chain. Whoever uses it holds the tenant's lock (`AuditPlaces.lock`).

Sealed means on the disk: the lines first, then the signed head. What was written wholly is never taken back;
a line that a kill tore was never sealed and is cut off. A head that is ahead of the lines says that some were
removed: the chain then goes on behind the head in a new segment, so that the hole stays visible for ever.
"""

import contextlib
import hashlib
import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from resources.audit.places import AuditError, AuditPlaces, private_folder, sync_folder, write_durably
from resources.audit.segments import (
    DELETED,
    GENESIS,
    HEAD,
    Segment,
    hash_in,
    last_line,
    line_of,
    record_in,
    segments_in,
)
from resources.audit.statements import Signing

_RISK_CLASS = re.compile(rb'"risk_class":"([a-z]+)"')

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SegmentLimits:
    """When a segment is closed; it is, too, when the day (UTC) changes."""

    records: int = 50_000
    size_bytes: int = 64 * 2**20
    age_s: float = 3600


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """Records that went into the segment `first`, at the bytes `start` to `end`: each one's id and offset."""

    first: int
    start: int
    end: int
    records: tuple[tuple[str, int], ...]


class _Tail(NamedTuple):
    """The end of the chain: newest record, and the open segment (size 0: it begins with the next record)."""

    seq: int
    hash: str
    segment: Segment
    size: int
    opened_at: float


class Chain:
    """Appends records and closes segments."""

    def __init__(
        self, places: AuditPlaces, tenant: str, signing: Signing, limits: SegmentLimits | None = None
    ) -> None:
        self.tenant, self.folder = tenant, places.log(tenant)
        self._signing, self._limits = signing, limits or SegmentLimits()
        self._tail: _Tail | None = None

    def append(self, records: Sequence[dict[str, Any]]) -> Sealed:
        """Seals the records in this order and says where they are.

        Raises:
            AuditError: The disk does not take them; none of them counts then.
        """
        now = time.time()
        with self._told():
            self.close_if_due(now)
            tail = self._current()
            if not records:
                return Sealed(first=tail.segment.first, start=tail.size, end=tail.size, records=())
            lines, places, end = self._lines(tail, records, now)
            self._write(tail, b"".join(lines))
        self._tail = end
        try:
            self._write_head(end, now)
        except OSError as error:  # the records are sealed; the next head covers them
            _log.error("The head of %s's audit log could not be written: %s", self.tenant, error)
        return Sealed(first=tail.segment.first, start=tail.size, end=end.size, records=tuple(places))

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._tail = None
            raise AuditError(
                f"The audit log of {self.tenant} could not be written: {error}. Make room on that disk, or "
                "give its folder back; what was to be written is kept where it came from and tried again."
            ) from error

    def close_if_due(self, now: float) -> bool:
        """Closes and signs the open segment if it is full, old, or of another day."""
        tail = self._current()
        if not tail.size or not self._due(tail, now):
            return False
        self._close(tail, now)
        self._tail = tail._replace(segment=Segment(folder=self.folder, first=tail.seq + 1), size=0)
        return True

    def _due(self, tail: _Tail, now: float) -> bool:
        limits, count = self._limits, tail.seq - tail.segment.first + 1
        full = count >= limits.records or tail.size >= limits.size_bytes
        return full or now - tail.opened_at >= limits.age_s or _day(now) != _day(tail.opened_at)

    def _close(self, tail: _Tail, now: float) -> None:
        with tail.segment.path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        content = tail.segment.path.read_bytes()
        statement = {
            "kind": "segment",
            "tenant": self.tenant,
            "first": tail.segment.first,
            "last": tail.seq,
            "previous": record_in(content[: content.index(b"\n")])["previous"],
            "hash": tail.hash,
            "sha256": digest,
            "risk_classes": sorted({found.decode() for found in _RISK_CLASS.findall(content)}),
            "closed_at": now,
        }
        write_durably(tail.segment.seal, self._signing.signed(statement))

    def _lines(
        self, tail: _Tail, records: Sequence[dict[str, Any]], now: float
    ) -> tuple[list[bytes], list[tuple[str, int]], _Tail]:
        seq, previous, offset = tail.seq, tail.hash, tail.size
        sealed_at = iso(now)
        lines, places = [], []
        for record in records:
            seq += 1
            line, digest = line_of(
                {**record, "tenant": self.tenant, "seq": seq, "previous": previous, "sealed_at": sealed_at}
            )
            places.append((record["id"], offset))
            lines.append(line)
            previous, offset = digest, offset + len(line)
        opened_at = tail.opened_at if tail.size else now
        return lines, places, _Tail(seq, previous, tail.segment, offset, opened_at)

    def _write(self, tail: _Tail, content: bytes) -> None:
        private_folder(self.folder)
        descriptor = os.open(tail.segment.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            with _whole_or_not(descriptor, tail.size):
                written = 0
                while written < len(content):
                    written += os.write(descriptor, content[written:])
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if not tail.size:
            sync_folder(self.folder)

    def _write_head(self, tail: _Tail, now: float) -> None:
        statement = {
            "kind": "head",
            "tenant": self.tenant,
            "seq": tail.seq,
            "hash": tail.hash,
            "segment": tail.segment.first,
            "at": now,
        }
        write_durably(self.folder / HEAD, self._signing.signed(statement), replaced=True)

    def _current(self) -> _Tail:
        """As it is on the disk: another process may have appended since."""
        tail = self._tail
        if (
            tail is None
            or _size(tail.segment.path) != tail.size
            or (tail.size and tail.segment.seal.exists())
        ):
            self._tail = tail = self._load()
        return tail

    def _load(self) -> _Tail:
        tail = self._newest()
        head = self._head()
        if head and int(head["seq"]) > tail.seq:
            _log.critical(
                "The audit log of %s ends at %d but was sealed up to %d: records were removed. It goes on "
                "in a new segment; `llm-assets audit verify` names what is missing.",
                self.tenant,
                tail.seq,
                head["seq"],
            )
            return self._empty(int(head["seq"]), str(head["hash"]))
        return tail

    def _newest(self) -> _Tail:
        for segment in reversed(segments_in(self.folder)):
            line, end = last_line(segment.path)
            if not line:
                segment.path.unlink()
                continue
            seq, digest = int(record_in(line)["seq"]), hash_in(line)
            if segment.seal.exists():
                return self._empty(seq, digest)
            if end != segment.path.stat().st_size:
                os.truncate(segment.path, end)
            return _Tail(seq, digest, segment, end, _opened_at(segment.path))
        for segment in reversed(segments_in(self.folder, DELETED)):
            proof = self._signing.verified(segment.proof.read_bytes(), str(segment.proof))
            return self._empty(int(proof["last"]), str(proof["hash"]))
        return self._empty(0, GENESIS)

    def _empty(self, seq: int, digest: str) -> _Tail:
        return _Tail(seq, digest, Segment(folder=self.folder, first=seq + 1), 0, 0.0)

    def _head(self) -> dict[str, Any] | None:
        path = self.folder / HEAD
        try:
            return self._signing.verified(path.read_bytes(), str(path))
        except FileNotFoundError:
            return None
        except AuditError as error:
            _log.critical("%s. A new one is made; what it covered is no longer proven.", error)
            return None


def iso(at: float) -> str:
    """UTC, to the microsecond."""
    second, microseconds = divmod(round(at * 1e6), 1_000_000)
    return f"{_second(second)}.{microseconds:06d}Z"


@lru_cache(maxsize=256)
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")[:-6]


def seconds(text: str) -> float:
    """The reverse of `iso`."""
    return datetime.fromisoformat(text).timestamp()


@contextlib.contextmanager
def _whole_or_not(descriptor: int, size: int) -> Iterator[None]:
    try:
        yield
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def _opened_at(path: Path) -> float:
    with path.open("rb") as stream:
        return seconds(str(record_in(stream.readline())["sealed_at"]))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _day(at: float) -> int:
    return int(at // 86400)
