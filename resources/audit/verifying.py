"""Is a tenant's log what was sealed? Every line, seal, proof and the head, with the place of whatever is
wrong; and is it still the log whose heads lie in the artifact store (`anchors.py`)?

The walk along the chain is the one that an export brings along (`outside_verifier.py`). Not found without a
store under other credentials: a log that was put back together with its head as it was at an earlier moment,
and one that is gone as a whole with the keys of its subjects.
"""

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass

from resources.audit.anchors import Anchor, Anchors
from resources.audit.outside_verifier import HEAD, Untrusted, Walk, sizes_in
from resources.audit.places import AuditError, AuditPlaces
from resources.audit.statements import Signing

TRIES = 5
NAMED = 3
"""Of heads in the store that do not fit, so many are named; one forged record changes all that come later."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong. `segment` is a file's name; `line` counts from 1, 0 is the whole file."""

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


def known_tenants(places: AuditPlaces, anchors: Anchors | None) -> list[str]:
    """Who has a chain here, or had one by the keys of its subjects or by the artifact store; sorted."""
    return sorted({*places.tenants(), *places.tenants_with_keys(), *(anchors.tenants() if anchors else ())})


def verify_tenant(
    places: AuditPlaces,
    tenant: str,
    signing: Signing,
    anchors: Anchors | None = None,
    *,
    locked: bool = False,
) -> Verdict:
    """Reads all of it, and compares it with the heads in the store where they are given; of `known_tenants`.

    Args:
        locked: Whoever calls holds the tenant's lock, which nobody can take twice.

    Raises:
        ObjectStoreError: The store does not answer.
    """
    heads = list(anchors.of(tenant)) if anchors else []
    if not places.log(tenant).is_dir():
        return _gone(tenant, heads, keys=tenant in places.tenants_with_keys())
    walk = _walked(places, tenant, signing, heads, locked=locked)
    problems = [*walk.faults, *((HEAD, 0, problem) for problem in _against_the_store(walk, heads, signing))]
    return Verdict(
        tenant=tenant,
        records=walk.records,
        segments=walk.segments,
        deleted_segments=walk.deleted,
        faults=tuple(
            Fault(tenant=tenant, segment=file, line=line, problem=problem) for file, line, problem in problems
        ),
    )


def _gone(tenant: str, heads: list[Anchor], *, keys: bool) -> Verdict:
    known = "the keys of its subjects are there" if keys else "the artifact store has segments of it"
    if heads:
        known = f"the artifact store has its heads up to record {heads[-1].seq}"
    problem = f"gone: there is no log of {tenant}, but {known}"
    fault = Fault(tenant=tenant, segment=HEAD, line=0, problem=problem)
    return Verdict(tenant=tenant, records=0, segments=0, deleted_segments=0, faults=(fault,))


def _walked(
    places: AuditPlaces, tenant: str, signing: Signing, heads: Iterable[Anchor], *, locked: bool
) -> Walk:
    """Begins anew where a segment was deleted, because it was due, while it was to be read."""

    def check(text: bytes, key: str, signature: bytes) -> None:
        try:
            signing.check(text, key, signature, "it")
        except AuditError as error:
            raise Untrusted(str(error)) from error

    watched = frozenset(head.seq for head in heads)
    for _ in range(TRIES):
        with (
            nullcontext() if locked else places.lock(tenant)
        ):  # files and head of one moment; what comes later is not looked at
            files = sizes_in(places.log(tenant))
            walk = Walk(places.log(tenant), tenant, check, files, watched)
            headed = walk.read_head()
        try:
            walk.run(headed=headed)
        except FileNotFoundError:
            continue
        return walk
    raise AuditError(f"The audit log of {tenant} changes all the time; verify it again.")


def _against_the_store(walk: Walk, heads: list[Anchor], signing: Signing) -> list[str]:
    """What the heads in the store say that is not so here; a head whose name fits is not fetched."""
    problems = []
    for head in reversed(heads):
        if head.seq < walk.deleted_to or walk.hashes.get(head.seq) == head.hash:
            continue
        try:
            head.proven(signing)
        except AuditError as error:
            problems.append(f"{head.key} in the artifact store is no head of this log: {error}")
            continue
        said = f"the head in the artifact store ({head.key})"
        if head.seq > walk.seq:
            problems.append(f"truncated: {said} covers records up to {head.seq}, there are {walk.seq}")
        else:
            problems.append(f"exchanged: {said} was signed over another record {head.seq}")
    more = [f"and {len(problems) - NAMED} more heads in the artifact store"] if len(problems) > NAMED else []
    return problems[:NAMED] + more
