"""Is a backup of the log, and of the keys that open it, one that could be restored?

Read as it lies there, unpacked or mounted, and never written to. The chain must verify; the keys must be
those of this log; what no key opens must have its erasure on record, and who was erased must have no key:
else the two are of different times. Texts are opened to see that they open, and nothing of them is shown.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from resources.audit.places import AuditError, AuditPlaces
from resources.audit.searching import ERASED, opened
from resources.audit.segments import lines_in, record_in, segments_in
from resources.audit.statements import Signing
from resources.audit.subject_keys import SubjectKeys
from resources.audit.verifying import verify_tenant

PARTS = (("personal", "subject"), ("personal_actor", "actor"))


@dataclass(frozen=True, kw_only=True)
class CheckedBackup:
    """Of one tenant: what opens, what was erased, and what is wrong."""

    tenant: str
    records: int
    opened: int
    erased: int
    faults: tuple[str, ...]


def check_backup(places: AuditPlaces, signing: Signing) -> Iterator[CheckedBackup]:
    """Every tenant of the backup whose folders these are.

    Raises:
        AuditError: There is no log, no trusted key, or the keys of data subjects are not those of the log.
    """
    if not places.tenants():
        raise AuditError(f"There is no audit log in {places.folder}.")
    if not any(signing.keys.glob("*.pub")):
        raise AuditError(f"There is no trusted key in {signing.keys}; nothing can be verified without.")
    if fault := places.keys_fault():
        raise AuditError(fault)
    for tenant in places.tenants():
        yield _checked(places, tenant, signing)


def _checked(places: AuditPlaces, tenant: str, signing: Signing) -> CheckedBackup:
    verdict = verify_tenant(places, tenant, signing, locked=True)  # nobody writes to a backup
    faults = [f"{each.segment}, line {each.line}: {each.problem}" for each in verdict.faults]
    keys = SubjectKeys(places.keys(tenant))
    keys.begin()
    records = list(_records(places, tenant))
    erased = {str(record.get("subject")) for record in records if record.get("event") == "erasure"}
    count: Counter[str] = Counter()
    lost: set[str] = set()
    for record in records:
        for part, owner in PARTS:
            if part not in record:
                continue
            opens, pseudonym = _opens(record, part, keys), str(record.get(owner))
            count["opened"] += opens is True
            count["erased"] += opens is None and pseudonym in erased
            if opens is None and pseudonym not in erased:
                lost.add(pseudonym)
            if opens is False:
                faults.append(f"record {record['id']}: its {part} part does not open with its key")
    if lost:
        said = "subjects have no key, and no erasure is on record: the keys are older than the log"
        faults.append(f"{len(lost)} {said}")
    if back := [pseudonym for pseudonym in erased if keys.by_pseudonym(pseudonym)]:
        said = "erased subjects have a key: the keys are older than their erasure, which a restore would undo"
        faults.append(f"{len(back)} {said}")
    return CheckedBackup(
        tenant=tenant,
        records=verdict.records,
        opened=count["opened"],
        erased=count["erased"],
        faults=tuple(faults),
    )


def _opens(record: dict[str, object], part: str, keys: SubjectKeys) -> bool | None:
    """None: nobody has its key."""
    with suppress(AuditError, ValueError):
        return None if opened(record, keys)[part] == ERASED else True
    return False


def _records(places: AuditPlaces, tenant: str) -> Iterator[dict[str, object]]:
    for segment in segments_in(places.log(tenant)):
        for line in lines_in(segment.path):
            with suppress(AuditError):  # the verdict names it
                yield record_in(line)
