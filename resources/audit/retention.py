"""Deleting what is due, whole closed segments from the beginning of a chain, each with a signed proof in its
place.

Due is what both clocks say is: the time of day, which can be set, and how long the installation has run since
(`run_time.py`). A proof holds what the seal held (first, last, hashes), so the chain behind it still
verifies, and why it was due. It is written before anything is deleted: killed in between, the next pass
finishes. A segment is kept for as long as the longest rule among the risk classes of its records says.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from resources.audit.places import AuditError, AuditPlaces
from resources.audit.run_time import Moment
from resources.audit.sealing import Sealer
from resources.audit.segments import DELETED, SEAL, Segment, segments_in
from resources.durable_files import remove_file, replace_file

DAY_S = 86_400

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """How long one tenant's records are kept. With `legal_hold` nothing is deleted or erased."""

    days: int
    days_by_risk_class: Mapping[str, int] = field(default_factory=dict)
    legal_hold: bool = False

    def days_for(self, risk_classes: list[str]) -> int:
        return max([self.days, *(self.days_by_risk_class.get(each, 0) for each in risk_classes)])


def delete_due(sealer: Sealer, tenant: str, keeping: Keeping, moment: Moment | None = None) -> int:
    """How many segments were deleted.

    Raises:
        AuditError: A seal is not what was signed: what it seals is kept until somebody has looked.
    """
    finish_deletions(sealer.places, tenant)
    if keeping.legal_hold:
        return 0
    now, count = moment or sealer.run_time.moment(), 0
    for segment in segments_in(sealer.places.log(tenant), SEAL):
        seal = sealer.signing.verified(segment.seal.read_bytes(), f"{segment.seal}")
        days = keeping.days_for(list(seal["risk_classes"]))
        passed_s = now.at - float(seal["closed_at"]), now.ran_s - float(seal.get("ran_s", 0))
        if min(passed_s) < days * DAY_S:  # a seal from before run times were kept counts from their beginning
            break
        _delete(sealer, segment, seal, days, now)
        count += 1
    return count


def finish_deletions(places: AuditPlaces, tenant: str) -> None:
    """Takes away the segments that have a proof already: somebody was killed between the two."""
    for segment in segments_in(places.log(tenant), DELETED):
        _unlink(segment)


def _delete(sealer: Sealer, segment: Segment, seal: dict[str, Any], days: int, now: Moment) -> None:
    tenant = str(seal["tenant"])
    facts = {name: seal[name] for name in ("first", "last", "previous", "hash", "sha256", "closed_at")}
    proof = {"kind": "deletion", "tenant": tenant, "retention_days": days, **facts}
    proof |= {"deleted_at": now.at, "ran_s": now.ran_s}
    if int(seal["first"]) != segment.first:
        raise AuditError(f"{segment.seal} is the seal of another segment; nothing of {tenant} is deleted.")
    replace_file(segment.proof, sealer.signing.signed(proof), sync_folder=True)
    _unlink(segment)
    sealer.index.forget(tenant, segment.first)
    sealer.record_event(
        tenant, "retention", first=seal["first"], last=seal["last"], retention_days=days, by="llm-assets"
    )
    _log.info("Deleted %s (records %d to %d, %d days).", segment.path, seal["first"], seal["last"], days)


def _unlink(segment: Segment) -> None:
    remove_file(segment.path)
    remove_file(segment.seal)
