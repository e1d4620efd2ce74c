"""The writer of one tenant's chain. Whoever uses it holds the tenant's lock (`AuditPlaces.lock`).

Sealed means on the disk: the lines, the last of which signs them, then the signed head. What was signed is
never taken back; lines behind the head that nobody signed (a kill tore a batch, or somebody added them) are
cut off. A head that is ahead of the lines, missing, or of another record says that somebody was at the log:
the chain then goes on in a new segment that leaves a number out, so that the hole stays visible for ever.
"""

import contextlib
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from resources.audit.outside_verifier import batch_signature
from resources.audit.places import AuditError, AuditPlaces
from resources.audit.run_time import RunTime
from resources.audit.segments import (
    DELETED,
    GENESIS,
    HEAD,
    Segment,
    hash_in,
    last_line,
    line_of,
    lines_in,
    record_in,
    segments_in,
)
from resources.audit.statements import Signing, stated_in
from resources.durable_files import private_folder, replace_file, sync
from resources.hashes import sha256_of

_TIME = re.compile(rb'"(?:started_at|ended_at|sealed_at|at)":"([^"]+)"')
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


Stamp = tuple[int, int]
"""Which file `head.json` is: it is a new one each time that it is written."""


class Chain:
    """Appends records and closes segments."""

    def __init__(
        self, places: AuditPlaces, tenant: str, signing: Signing, run_time: RunTime, limits: SegmentLimits
    ) -> None:
        self.tenant, self.folder = tenant, places.log(tenant)
        self._signing, self._run_time, self._limits = signing, run_time, limits
        self._tail: _Tail | None = None
        self._stamp: Stamp | None = None
        self._headed = 0  # the number that the head is of

    def append(self, records: Sequence[dict[str, object]]) -> Sealed:
        """Seals the records in this order and says where they are.

        Raises:
            AuditError: The disk does not take them; none of them counts then.
        """
        now = self._run_time.clocks.now()
        with self._told():
            self.close_if_due(now)
            tail = self._current()
            if not records:
                return Sealed(first=tail.segment.first, start=tail.size, end=tail.size, records=())
            if self._stamp is None and tail.seq == 0:
                self._write_head(tail, now)  # from here on, a missing head was taken away
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
        """The head first, where a kill or a full disk kept it back: no seal is ever ahead of it."""
        if self._headed != tail.seq:
            self._write_head(tail, now)
        digest = sha256_of(tail.segment.path)
        content = tail.segment.path.read_bytes()
        statement = {
            "kind": "segment",
            "tenant": self.tenant,
            "first": tail.segment.first,
            "last": tail.seq,
            "previous": _field(content[: content.index(b"\n")], "previous"),
            "hash": tail.hash,
            "sha256": digest,
            "risk_classes": sorted({found.decode() for found in _RISK_CLASS.findall(content)}),
            "latest": max((found.decode() for found in _TIME.findall(content)), default=""),
            "closed_at": now,
            "ran_s": self._run_time.moment().ran_s,
        }
        replace_file(tail.segment.seal, self._signing.signed(statement), sync_folder=True)

    def _lines(
        self, tail: _Tail, records: Sequence[dict[str, object]], now: float
    ) -> tuple[list[bytes], list[tuple[str, int]], _Tail]:
        seq, previous, offset = tail.seq, tail.hash, tail.size
        sealed_at = iso(now)
        lines, places = [], []
        for number, record in enumerate(records, 1):
            seq += 1
            line, digest = line_of(
                {**record, "tenant": self.tenant, "seq": seq, "previous": previous, "sealed_at": sealed_at},
                self._signing.signature if number == len(records) else None,
            )
            places.append((str(record["id"]), offset))
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
            sync(self.folder)

    def _write_head(self, tail: _Tail, now: float) -> None:
        statement = {
            "kind": "head",
            "tenant": self.tenant,
            "seq": tail.seq,
            "hash": tail.hash,
            "segment": tail.segment.first,
            "at": now,
        }
        replace_file(self.folder / HEAD, self._signing.signed(statement))
        self._stamp, self._headed = self._stamp_of_head(), tail.seq

    def take_back(self) -> None:
        """Cuts off what nobody signed, before anybody reads it as a record."""
        with self._told():
            self._current()

    def _current(self) -> _Tail:
        """As it is on the disk: another process may have appended since, or put another head there."""
        tail = self._tail
        if (
            tail is None
            or self._stamp_of_head() != self._stamp
            or _size(tail.segment.path) != tail.size
            or (tail.size and tail.segment.seal.exists())
        ):
            self._stamp = self._stamp_of_head()
            self._tail = tail = self._load()
        return tail

    def _stamp_of_head(self) -> Stamp | None:
        try:
            found = (self.folder / HEAD).stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _load(self) -> _Tail:
        head, tail = self._head(), self._newest()
        if tail is None:
            return self._behind_what_cannot_be_read(head)
        if head is None:
            if not tail.seq:
                return tail
            return self._with_a_hole(tail.seq + 1, tail.hash, "has no signed head that counts")
        self._headed = seq = int(head["seq"])
        digest = str(head["hash"])
        if seq > tail.seq:
            return self._with_a_hole(seq, digest, f"ends at {tail.seq} but was sealed up to {seq}")
        if seq < tail.seq:
            return self._with_what_was_signed(tail, seq, digest)
        if digest != tail.hash:
            return self._with_a_hole(tail.seq + 1, tail.hash, f"has another record {seq} than was sealed")
        return tail

    def _behind_what_cannot_be_read(self, head: dict[str, Any] | None) -> _Tail:
        """The last line is no record, or the last proof none: garbage that was added is cut off."""
        segments, seq = segments_in(self.folder), int(head["seq"]) if head else 0
        end = max([seq, *(_end_of(each) for each in segments)])
        if head and segments and not segments[-1].seal.exists() and end > seq:
            size = segments[-1].path.stat().st_size
            tail = _Tail(end, "", segments[-1], size, _opened_at(segments[-1].path))
            return self._with_what_was_signed(tail, seq, str(head["hash"]))
        return self._with_a_hole(end + 1, GENESIS, "has an end that cannot be read")

    def _with_a_hole(self, seq: int, digest: str, why: str) -> _Tail:
        _log.critical(
            "The audit log of %s %s: somebody changed it. It goes on in a new segment; "
            "`llm-assets audit verify` names what is missing.",
            self.tenant,
            why,
        )
        return self._empty(seq, digest)

    def _with_what_was_signed(self, tail: _Tail, seq: int, digest: str) -> _Tail:
        """Behind the head, what chained lines sign stays, unless the head is of another record."""
        if not tail.size or tail.segment.first > seq + 1:
            why = f"has a head of record {seq}, older than its seals"
            return self._with_a_hole(tail.seq + 1, tail.hash, why)
        kept = tail._replace(seq=seq, hash=digest if tail.segment.first == seq + 1 else "", size=0)
        number, offset, before = tail.segment.first - 1, 0, kept.hash
        for line in lines_in(tail.segment.path):
            number, offset = number + 1, offset + len(line)
            chained = (_field(line, "seq"), _field(line, "previous")) == (number, before)
            if number > seq and not (chained and kept.hash):
                break
            before = hash_in(line)
            if number == seq or (number > seq and self._signs(line)):
                kept = kept._replace(seq=number, hash=before, size=offset)
            if number == seq and before != digest:
                break
        if kept.seq == seq and kept.hash != digest:
            return self._with_a_hole(tail.seq + 1, tail.hash, f"has another record {seq} than was sealed")
        if kept.size == tail.size:
            return tail
        said = "%s: records behind number %d were never signed; they are taken back."
        _log.warning(said, tail.segment.path, kept.seq)
        if not kept.size:
            tail.segment.path.unlink()
            return self._empty(seq, digest)
        os.truncate(tail.segment.path, kept.size)
        return kept

    def _signs(self, line: bytes) -> bool:
        signed = batch_signature(line)
        try:
            if signed:
                self._signing.check(*signed, str(self.folder))
        except AuditError:
            return False
        return signed is not None

    def _newest(self) -> _Tail | None:
        """Where it ends by what lies there; None where that cannot be read."""
        for segment in reversed(segments_in(self.folder)):
            line, end = last_line(segment.path)
            if not line:
                segment.path.unlink()
                continue
            seq, digest = _field(line, "seq"), hash_in(line)
            if not isinstance(seq, int):
                return None
            if segment.seal.exists():
                return self._empty(seq, digest)
            if end != segment.path.stat().st_size:
                os.truncate(segment.path, end)
            return _Tail(seq, digest, segment, end, _opened_at(segment.path))
        for segment in reversed(segments_in(self.folder, DELETED)):
            try:
                proof = self._signing.verified(segment.proof.read_bytes(), str(segment.proof))
            except AuditError:
                return None
            return self._empty(int(proof["last"]), str(proof["hash"]))
        return self._empty(0, GENESIS)

    def _empty(self, seq: int, digest: str) -> _Tail:
        return _Tail(seq, digest, Segment(folder=self.folder, first=seq + 1), 0, 0.0)

    def _head(self) -> dict[str, Any] | None:
        path = self.folder / HEAD
        try:
            head = self._signing.verified(path.read_bytes(), str(path))
        except FileNotFoundError:
            return None
        except AuditError as error:
            _log.critical("%s. A new one is made; what it covered is no longer proven.", error)
            return None
        return head if (head.get("kind"), head.get("tenant")) == ("head", self.tenant) else None


def _end_of(segment: Segment) -> int:
    """The number that its last line would have."""
    return segment.first - 1 + sum(1 for _ in lines_in(segment.path))


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


def ended_before(segment: Segment, at: float) -> bool:
    """Its seal says the latest time in it; the clock may have been set back before it was closed."""
    try:
        latest = stated_in(segment.seal.read_bytes()).get("latest")
    except (FileNotFoundError, ValueError, KeyError):
        return False  # open, or `verify` says what was done to it
    return bool(latest) and seconds(str(latest)) < at


@contextlib.contextmanager
def _whole_or_not(descriptor: int, size: int) -> Iterator[None]:
    try:
        yield
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def _opened_at(path: Path) -> float:
    """0 where somebody changed what says it: the segment is closed then, and `verify` names it."""
    with path.open("rb") as stream:
        try:
            return seconds(str(_field(stream.readline(), "sealed_at")))
        except ValueError:
            return 0.0


def _field(line: bytes, name: str) -> Any:
    """Of a record; None where it has no such field, or is none."""
    try:
        return record_in(line).get(name)
    except AuditError:
        return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _day(at: float) -> int:
    return int(at // 86400)
