"""Is a tenant's log what was sealed? Every line, seal, proof and the head, with the place of whatever is
wrong.

Not found: records at the end that were removed together with the head by somebody who kept an older head of
the same installation. The heads in the artifact store (`publishing.py`) are compared for that.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resources.audit.places import AuditError, AuditPlaces
from resources.audit.segments import (
    DELETED,
    GENESIS,
    HEAD,
    SEAL,
    Segment,
    hash_in,
    hash_of,
    record_in,
    segments_in,
)
from resources.audit.statements import Signing

TRIES = 5


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong. `segment` is a file's name; `line` counts from 1, 0 is the whole segment."""

    tenant: str
    segment: str
    line: int
    problem: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was found in one chain."""

    tenant: str
    records: int
    segments: int
    deleted_segments: int
    faults: tuple[Fault, ...]


def verify_tenant(places: AuditPlaces, tenant: str, signing: Signing, *heads: bytes) -> Verdict:
    """Reads all of it. `heads` are more signed heads that must be in the chain, from the artifact store."""
    walk = _walked(places, tenant, signing, heads)
    return Verdict(
        tenant=tenant,
        records=walk.records,
        segments=walk.segments,
        deleted_segments=walk.deleted,
        faults=tuple(walk.faults),
    )


def _walked(places: AuditPlaces, tenant: str, signing: Signing, heads: tuple[bytes, ...]) -> "_Walk":
    """Begins anew where a segment was deleted, because it was due, while it was to be read."""
    for _ in range(TRIES):
        walk = _Walk(places.log(tenant), tenant, signing)
        try:
            walk.run(heads)
        except FileNotFoundError:
            continue
        return walk
    raise AuditError(f"The audit log of {tenant} changes all the time; verify it again.")


class _Walk:
    """Along one chain; `seq` and `hash` are those of the record before."""

    def __init__(self, folder: Path, tenant: str, signing: Signing) -> None:
        self.folder, self.tenant, self.signing = folder, tenant, signing
        self.faults: list[Fault] = []
        self.seq, self.hash = 0, GENESIS
        self.records = self.segments = self.deleted = 0
        self._wanted: dict[int, tuple[str, str]] = {}  # seq -> hash and which head says so

    def run(self, heads: tuple[bytes, ...]) -> None:
        self._read_heads(heads)
        self._follow_proofs()
        segments = [segment for segment in segments_in(self.folder) if not segment.proof.exists()]
        for segment in segments:
            self._segment(segment, last=segment is segments[-1])
        for stray in segments_in(self.folder, SEAL):
            if not stray.path.exists() and not stray.proof.exists():
                self._fault(stray.path, 0, "the segment is missing; its seal is there")
        for seq, (_, said_by) in sorted(self._wanted.items()):
            self._fault(
                self.folder / HEAD,
                0,
                f"truncated: {said_by} covers records up to {seq}, there are {self.seq}",
            )

    def _read_heads(self, heads: tuple[bytes, ...]) -> None:
        path = self.folder / HEAD
        found = [("the head in the artifact store", head) for head in heads]
        if path.is_file():
            found.append(("the head", path.read_bytes()))
        else:
            self._fault(path, 0, "the signed head is missing")
        for name, content in found:
            head = self._statement(content, path, name, "head")
            if head:
                self._wanted[int(head["seq"])] = (str(head["hash"]), name)

    def _follow_proofs(self) -> None:
        for segment in segments_in(self.folder, DELETED):
            proof = self._statement(
                segment.proof.read_bytes(), segment.proof, "the proof of deletion", "deletion"
            )
            if proof is None:
                continue
            if (proof["first"], proof["previous"]) != (self.seq + 1, self.hash):
                self._fault(
                    segment.proof, 0, f"the proof begins at {proof['first']}, expected was {self.seq + 1}"
                )
            self.seq, self.hash = int(proof["last"]), str(proof["hash"])
            self.deleted += 1
        self._wanted = {seq: wanted for seq, wanted in self._wanted.items() if seq > self.seq}

    def _segment(self, segment: Segment, *, last: bool) -> None:
        self.segments += 1
        if segment.first != self.seq + 1:
            gap = f"records {self.seq + 1} to {segment.first - 1} before it are missing"
            self._fault(segment.path, 0, gap if segment.first > self.seq else "it repeats earlier records")
            self.seq = segment.first - 1
        before, digest = self.hash, hashlib.sha256()
        closed = segment.seal.exists()  # asked first: the collector may close it while it is read
        with segment.path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                digest.update(line)
                if line.endswith(b"\n") or closed or not last:  # else it is being written, and not sealed yet
                    self._line(segment, number, line)
        if closed:
            self._seal(segment, before, digest.hexdigest())
        elif not last:
            self._fault(segment.seal, 0, "the signature that closed this segment is missing")

    def _line(self, segment: Segment, number: int, line: bytes) -> None:
        self.records += 1
        if not line.endswith(b"\n"):
            self._fault(segment.path, number, "torn: the line has no end")
        record = self._record(segment, number, line)
        claimed = hash_in(line)
        if record is not None:
            self._order(segment, number, record)
        self._compare_head(segment, number, claimed)
        self.hash = claimed

    def _record(self, segment: Segment, number: int, line: bytes) -> dict[str, Any] | None:
        if hash_in(line) != hash_of(line):
            self._fault(segment.path, number, "edited: its hash does not fit its content")
        try:
            return record_in(line)
        except AuditError as error:
            self._fault(segment.path, number, f"edited: {error}")
            self.seq += 1
            return None

    def _order(self, segment: Segment, number: int, record: dict[str, Any]) -> None:
        seq, expected = record.get("seq"), self.seq + 1
        if not isinstance(seq, int):
            self._fault(segment.path, number, "edited: it has no sequence number")
            seq = expected
        elif seq > expected:
            self._fault(
                segment.path, number, f"dropped: records {expected} to {seq - 1} are missing before it"
            )
        elif seq < expected:
            self._fault(segment.path, number, f"reordered: it is record {seq}, expected was {expected}")
        elif record.get("previous") != self.hash:
            self._fault(
                segment.path, number, "it does not follow the record before it: one of them was exchanged"
            )
        if record.get("tenant") != self.tenant:
            self._fault(segment.path, number, f"it is a record of {record.get('tenant')}")
        self.seq = seq

    def _compare_head(self, segment: Segment, number: int, claimed: str) -> None:
        wanted = self._wanted.pop(self.seq, None)
        if wanted and wanted[0] != claimed:
            self._fault(
                segment.path, number, f"exchanged: {wanted[1]} was signed over another record {self.seq}"
            )

    def _seal(self, segment: Segment, before: str, sha256: str) -> None:
        seal = self._statement(segment.seal.read_bytes(), segment.seal, "the seal", "segment")
        if seal is None:
            return
        found = {"first": segment.first, "last": self.seq, "hash": self.hash, "sha256": sha256}
        if differ := [name for name, value in found.items() if seal.get(name) != value]:
            self._fault(segment.path, 0, f"it is not what was closed and signed: {', '.join(differ)} differ")
        if seal.get("previous") != before:
            self._fault(
                segment.path, 0, "the segment before it is not the one that was there when it was signed"
            )

    def _statement(self, content: bytes, path: Path, name: str, kind: str) -> dict[str, Any] | None:
        try:
            statement = self.signing.verified(content, name)
        except AuditError as error:
            self._fault(path, 0, f"bad signature: {error}")
            return None
        if statement.get("kind") != kind or statement.get("tenant") != self.tenant:
            self._fault(path, 0, f"{name} is one of {statement.get('tenant')} ({statement.get('kind')})")
            return None
        return statement

    def _fault(self, path: Path, line: int, problem: str) -> None:
        self.faults.append(Fault(tenant=self.tenant, segment=path.name, line=line, problem=problem))


def verify_all(places: AuditPlaces, signing: Signing) -> Iterator[Verdict]:
    """Every tenant's chain."""
    for tenant in places.tenants():
        yield verify_tenant(places, tenant, signing)
