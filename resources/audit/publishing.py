"""One audit log in the artifact store: `audit/<tenant>/<first seq>.jsonl.gz`, a closed segment, with its
seal; and the heads (`anchors.py`). Nothing there is written twice.

Beginning, it compares: a log here that is older than the store knows it (it was put back, or is gone) goes on
behind the store's head, so that what is missing is missed for ever. A store that is down delays this and
nothing else. What retention deleted here is deleted there, and its proof is left in its place; a store that
locks its objects keeps them until its own time has come.
"""

import gzip
import json
import logging
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from resources.audit.anchors import AUDIT, Anchors
from resources.audit.places import AuditError, AuditPlaces
from resources.audit.segments import DELETED, HEAD, SEAL, Segment, hash_at, segments_in
from resources.audit.statements import Signing, stated_in
from resources.durable_files import private_folder, replace_file
from resources.object_stores.objects import ObjectMissing, ObjectStore, ObjectStoreError

COMPRESSION, BLOCK = 6, 2**20

_log = logging.getLogger(__name__)


@dataclass
class _Position:
    """How far one tenant's log is in the store; `head` is the key of the head that was brought last."""

    published: int = 0
    deleted: int = 0
    head: str = ""


@dataclass
class Publisher:
    """Brings one audit log to one store; position kept on the disk, so at least once."""

    places: AuditPlaces
    objects: ObjectStore
    signing: Signing
    _positions: dict[str, _Position] = field(default_factory=dict)
    _compared: set[str] = field(default_factory=set)

    @property
    def anchors(self) -> Anchors:
        return Anchors(objects=self.objects)

    def publish(self) -> int:
        """How many objects it brought or took away.

        Raises:
            ObjectStoreError: The store does not take them now; the next call goes on where this one ended.
            AuditError: The store holds another segment than this log; it is not written over.
        """
        count, faults = 0, []
        for tenant in sorted({*self.places.tenants(), *self._only_in_the_store()}):
            try:
                self._compare(tenant)
                count += self._tenant(tenant)
            except (ObjectStoreError, AuditError) as fault:  # the other tenants' go on
                faults.append(fault)
        if faults:
            raise faults[0]
        return count

    def _only_in_the_store(self) -> list[str]:
        """Asked once, at the beginning."""
        return [] if self._compared else self.anchors.tenants()

    def _compare(self, tenant: str) -> None:
        """Once for each tenant: is what lies here as new as what was brought to the store?"""
        if tenant in self._compared:
            return
        found = self.anchors.newest(tenant, self.signing)
        if found is not None:
            self._go_on_behind(tenant, *found)
        self._compared.add(tenant)

    def _go_on_behind(self, tenant: str, seq: int, content: bytes) -> None:
        path = self.places.log(tenant) / HEAD
        with self.places.lock(tenant):
            here = self._head_here(path)
            if here >= seq:
                claimed = hash_at(path.parent, seq)
                if claimed and claimed != stated_in(content)["hash"]:
                    said = (
                        "The audit log of %s has another record %d than the head in the artifact store says."
                    )
                    _log.critical(f"{said} `llm-assets audit verify` says more.", tenant, seq)
                return
            _log.critical(
                "The audit log of %s ends at %d, but the artifact store has its head of record %d: it was "
                "put back, or taken away. It goes on behind that; `llm-assets audit verify` says more.",
                tenant,
                here,
                seq,
            )
            replace_file(path.parent / HEAD, content, sync_folder=True)

    def _head_here(self, path: Path) -> int:
        try:
            return int(self.signing.verified(path.read_bytes(), str(path))["seq"])
        except (FileNotFoundError, AuditError):
            return 0

    def _tenant(self, tenant: str) -> int:
        position, folder = self._position(tenant), self.places.log(tenant)
        count = self._bring_head(tenant, position)
        for segment in segments_in(folder, SEAL):
            if segment.first > position.published and segment.path.exists():
                self._bring(tenant, segment)
                position.published, count = segment.first, count + 1
                self._keep(tenant, position)
        for segment in segments_in(folder, DELETED):
            if segment.first > position.deleted:
                self._withdraw(tenant, segment)
                position.deleted, count = segment.first, count + 1
                self._keep(tenant, position)
        return count

    def _bring(self, tenant: str, segment: Segment) -> None:
        """Unless it is there: the seal comes last, so where it is the segment is too."""
        key, seal = f"{AUDIT}/{tenant}/{segment.seal.name}", segment.seal.read_bytes()
        try:
            there = self.objects.read(key)
        except ObjectMissing:
            with _compressed(segment.path, self._work) as packed:
                self.objects.upload(packed, f"{AUDIT}/{tenant}/{segment.path.name}.gz", _unseen)
            there = seal if self.objects.create(key, seal) else self.objects.read(key)
        if stated_in(there)["sha256"] != stated_in(seal)["sha256"]:
            raise AuditError(
                f"The artifact store has another segment {segment.name} of {tenant} than this log: one of "
                "the two was put back or forged. It is not written over; `llm-assets audit verify` says more."
            )

    def _withdraw(self, tenant: str, segment: Segment) -> None:
        self.objects.create(f"{AUDIT}/{tenant}/{segment.proof.name}", segment.proof.read_bytes())
        self.objects.delete(f"{AUDIT}/{tenant}/{segment.path.name}.gz")
        self.objects.delete(f"{AUDIT}/{tenant}/{segment.seal.name}")
        self.anchors.withdraw(tenant, segment.first)

    def _bring_head(self, tenant: str, position: _Position) -> int:
        path = self.places.log(tenant) / HEAD
        content = path.read_bytes() if path.exists() else b""
        if not content or not int((stated := stated_in(content))["seq"]):
            return 0
        name = f"{stated['seq']}-{stated['hash']}"
        if name == position.head:
            return 0
        self.anchors.bring(tenant, content)
        position.head = name
        self._keep(tenant, position)
        return 1

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
        replace_file(self._file(tenant), json.dumps(vars(position)), sync_folder=True)


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
