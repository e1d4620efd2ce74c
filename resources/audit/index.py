"""Which record is where: a SQLite table beside the log, derived from it and made anew when it is gone.

A row says tenant, segment and offset for the first eight bytes of an id's SHA-256; whoever looks up reads the
record there and compares its id. It may lag behind the log, never lie: `catch_up` reads what was sealed
since.
"""

import contextlib
import hashlib
import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from resources.audit.chain import Sealed
from resources.audit.places import AuditError, AuditPlaces
from resources.audit.segments import Segment, record_in, segments_in
from resources.durable_files import private_folder

BUSY_S = 30
BLOCK = 5_000  # records indexed in one transaction while catching up

_log = logging.getLogger(__name__)

_TABLES = """
CREATE TABLE IF NOT EXISTS tenants (number INTEGER PRIMARY KEY, name TEXT UNIQUE);
CREATE TABLE IF NOT EXISTS segments (tenant INTEGER, first INTEGER, indexed_bytes INTEGER,
                                     PRIMARY KEY (tenant, first)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (id INTEGER, tenant INTEGER, first INTEGER, offset INTEGER);
CREATE INDEX IF NOT EXISTS records_by_id ON records (id);
"""


class AuditIndex:
    """The index of one log; each process opens its own."""

    def __init__(self, places: AuditPlaces) -> None:
        self._places = places
        self._tenants: dict[str, int] = {}
        try:
            self._open(places.index)
        except sqlite3.DatabaseError:  # damaged: it is derived, so it is made anew
            for suffix in ("", "-wal", "-shm"):
                Path(f"{places.index}{suffix}").unlink(missing_ok=True)
            self._open(places.index)

    def _open(self, path: Path) -> None:
        private_folder(path.parent)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self._database = sqlite3.connect(path, timeout=BUSY_S, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.executescript(_TABLES)

    def add(self, tenant: str, sealed: Sealed) -> None:
        """What was just sealed; where the index lags behind it, the rest is read from the log."""
        if not sealed.records:
            return
        try:
            number = self._number(tenant)
            with self._database:
                done = self._indexed(number, sealed.first)
                if done == sealed.start:
                    self._insert(number, sealed.first, sealed.records, sealed.end)
            if (
                done > sealed.start and self.find(sealed.records[0][0]) is None
            ):  # of lines that were taken back
                self._forget(number, sealed.first)
                done = 0
            if done < sealed.start:  # another process sealed before and has not said so yet
                self._catch_up(number, Segment(folder=self._places.log(tenant), first=sealed.first))
        except sqlite3.Error as error:
            _log.warning("The index of the audit log lags, it catches up later: %s", error)

    def catch_up(self, tenants: Iterable[str] | None = None) -> None:
        """Reads what was sealed and is not indexed yet."""
        for tenant in self._places.tenants() if tenants is None else tenants:
            number = self._number(tenant)
            for segment in segments_in(self._places.log(tenant)):
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile, because it was due
                    self._catch_up(number, segment)

    def _catch_up(self, number: int, segment: Segment) -> None:
        done, size = self._indexed(number, segment.first), segment.path.stat().st_size
        if size == done:
            return
        if size < done:  # lines were indexed whose writing then failed, and was taken back
            self._forget(number, segment.first)
            done = 0
        with segment.path.open("rb") as stream:
            stream.seek(done)
            while block := list(_block(stream)):
                with self._database:
                    done += sum(len(line) for line in block)
                    self._insert(number, segment.first, _ids(block, done), done)

    def find(self, id: str) -> tuple[str, dict[str, object]] | None:
        """The tenant and the record with that id."""
        rows = self._database.execute(
            "SELECT name, first, offset FROM records JOIN tenants ON number = tenant WHERE id = ?",
            (_key(id),),
        ).fetchall()
        for tenant, first, offset in rows:
            record = self._record(tenant, first, offset)
            if record and record["id"] == id:
                return tenant, record
        return None

    def forget(self, tenant: str, first: int) -> None:
        """A segment was deleted."""
        self._forget(self._number(tenant), first)

    def _forget(self, number: int, first: int) -> None:
        with self._database:
            self._database.execute("DELETE FROM records WHERE tenant = ? AND first = ?", (number, first))
            self._database.execute("DELETE FROM segments WHERE tenant = ? AND first = ?", (number, first))

    def close(self) -> None:
        self._database.close()

    def _record(self, tenant: str, first: int, offset: int) -> dict[str, object] | None:
        path = Segment(folder=self._places.log(tenant), first=first).path
        try:
            with path.open("rb") as stream:
                stream.seek(offset)
                return record_in(stream.readline())
        except (FileNotFoundError, AuditError):  # deleted, or no longer what was indexed
            return None

    def _number(self, tenant: str) -> int:
        if tenant not in self._tenants:
            with self._database:
                self._database.execute("INSERT OR IGNORE INTO tenants (name) VALUES (?)", (tenant,))
            row = self._database.execute("SELECT number FROM tenants WHERE name = ?", (tenant,)).fetchone()
            self._tenants[tenant] = row[0]
        return self._tenants[tenant]

    def _indexed(self, number: int, first: int) -> int:
        row = self._database.execute(
            "SELECT indexed_bytes FROM segments WHERE tenant = ? AND first = ?", (number, first)
        ).fetchone()
        return row[0] if row else 0

    def _insert(self, number: int, first: int, ids: Iterable[tuple[str, int]], end: int) -> None:
        rows = ((_key(id), number, first, offset) for id, offset in ids)
        self._database.executemany("INSERT INTO records VALUES (?, ?, ?, ?)", rows)
        self._database.execute("INSERT OR REPLACE INTO segments VALUES (?, ?, ?)", (number, first, end))


def _block(stream: Iterable[bytes]) -> Iterator[bytes]:
    for _, line in zip(range(BLOCK), stream, strict=False):
        if line.endswith(b"\n"):
            yield line


def _ids(block: list[bytes], end: int) -> Iterator[tuple[str, int]]:
    """A line that is no record (somebody edited it) is left to `verify` to name."""
    offset = end - sum(len(line) for line in block)
    for line in block:
        with contextlib.suppress(AuditError, KeyError):
            yield str(record_in(line)["id"]), offset
        offset += len(line)


def _key(id: str) -> int:
    digest = hashlib.sha256(id.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
