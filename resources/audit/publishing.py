"""Closed segments in the artifact store: `audit/<tenant>/<first seq>.jsonl.gz` with its seal, and the newest
head.

The head there is what a truncation of log *and* head together cannot take back. A store that is down delays
this and nothing else. What retention deleted here is deleted there, and its proof is left in its place.
"""

import gzip
import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from resources.audit.places import AuditPlaces, private_folder, write_durably
from resources.audit.segments import DELETED, HEAD, SEAL, Segment, segments_in
from resources.object_stores.objects import ObjectMissing, ObjectStore

COMPRESSION, BLOCK = 6, 2**20


@dataclass
class _Position:
    """How far one tenant's segments are in the store."""

    published: int = 0
    deleted: int = 0
    head: float = 0.0


@dataclass
class Publisher:
    """Brings one audit log to one store; position kept on the disk, so at least once."""

    places: AuditPlaces
    objects: ObjectStore
    _positions: dict[str, _Position] = field(default_factory=dict)

    def publish(self) -> int:
        """How many objects it brought or took away.

        Raises:
            ObjectStoreError: The store does not take them now; the next call goes on where this one ended.
        """
        return sum(self._tenant(tenant) for tenant in self.places.tenants())

    def head(self, tenant: str) -> bytes | None:
        """The newest head of a tenant that is in the store."""
        try:
            return self.objects.read(f"audit/{tenant}/{HEAD}")
        except ObjectMissing:
            return None

    def _tenant(self, tenant: str) -> int:
        position, folder, count = self._position(tenant), self.places.log(tenant), 0
        for segment in segments_in(folder, DELETED):
            if segment.first > position.deleted:
                self._withdraw(tenant, segment)
                position.deleted, count = segment.first, count + 1
                self._keep(tenant, position)
        for segment in segments_in(folder, SEAL):
            if segment.first > position.published and segment.path.exists():
                self._bring(tenant, segment)
                position.published, count = segment.first, count + 1
                self._keep(tenant, position)
        return count + self._bring_head(tenant, position)

    def _bring(self, tenant: str, segment: Segment) -> None:
        with _compressed(segment.path, self._work) as packed:
            self.objects.upload(packed, f"audit/{tenant}/{segment.path.name}.gz", _unseen)
        self._bring_copy(tenant, segment.seal)

    def _withdraw(self, tenant: str, segment: Segment) -> None:
        self.objects.delete(f"audit/{tenant}/{segment.path.name}.gz")
        self.objects.delete(f"audit/{tenant}/{segment.seal.name}")
        self._bring_copy(tenant, segment.proof)

    def _bring_head(self, tenant: str, position: _Position) -> int:
        path = self.places.log(tenant) / HEAD
        at = path.stat().st_mtime if path.exists() else 0.0
        if at <= position.head:
            return 0
        self._bring_copy(tenant, path)
        position.head = at
        self._keep(tenant, position)
        return 1

    def _bring_copy(self, tenant: str, source: Path) -> None:
        """Not the file itself: a store on the same disk would share its bytes and what is done to them."""
        copy = self._work / uuid.uuid4().hex
        try:
            shutil.copyfile(source, copy)
            self.objects.upload(copy, f"audit/{tenant}/{source.name}", _unseen)
        finally:
            copy.unlink(missing_ok=True)

    @property
    def _work(self) -> Path:
        return private_folder(self.places.folder / "work")

    def _file(self, tenant: str) -> Path:
        return private_folder(self.places.positions / "store") / f"{tenant}.json"

    def _position(self, tenant: str) -> _Position:
        path = self._file(tenant)
        if tenant not in self._positions:
            kept = json.loads(path.read_text()) if path.exists() else {}
            self._positions[tenant] = _Position(**kept)
        return self._positions[tenant]

    def _keep(self, tenant: str, position: _Position) -> None:
        write_durably(self._file(tenant), json.dumps(vars(position)).encode())


@contextmanager
def _compressed(source: Path, folder: Path) -> Iterator[Path]:
    """A compressed copy for as long as the block runs."""
    packed = folder / f"{uuid.uuid4().hex}.gz"
    try:
        with (
            source.open("rb") as stream,
            packed.open("wb") as written,
            gzip.GzipFile("", "wb", COMPRESSION, written, mtime=0) as squeezed,
        ):
            shutil.copyfileobj(stream, squeezed, BLOCK)
        yield packed
    finally:
        packed.unlink(missing_ok=True)


def _unseen(_: int) -> None:
    """Nobody watches this transfer."""
