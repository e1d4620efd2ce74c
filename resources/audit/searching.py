"""Finding records of one tenant, and opening what the key of their subject opens."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from resources.audit.chain import ended_before, seconds
from resources.audit.index import AuditIndex
from resources.audit.places import AuditError, AuditPlaces
from resources.audit.segments import Segment, lines_in, record_in, segments_in
from resources.audit.subject_keys import SubjectKeys

ERASED = "erased"
"""What stands in place of a personal part whose key was destroyed."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """What a record must have; None: anything. Times are epoch seconds, `subject` is a person's name."""

    tenant: str
    since: float | None = None
    until: float | None = None
    model: str | None = None
    key: str | None = None
    subject: str | None = None
    request: str | None = None
    status: int | None = None


def search(places: AuditPlaces, index: AuditIndex, query: Query) -> Iterator[dict[str, object]]:
    """The records that fit, in the order in which they were sealed."""
    places.pair_keys()
    keys = SubjectKeys(places.keys(query.tenant))
    keys.begin()
    subject = keys.find(query.subject) if query.subject else None
    if query.subject and subject is None:
        return  # nobody of that name has a key: never seen, or erased
    pseudonym = subject.pseudonym if subject else None
    for record in _candidates(places, index, query):
        if _fits(record, query) and pseudonym in (None, record.get("subject"), record.get("actor")):
            yield record


def opened(record: dict[str, object], keys: SubjectKeys) -> dict[str, Any]:
    """The record with its personal parts readable, or `erased` in their place."""
    parts = (("personal", record.get("subject")), ("personal_actor", record.get("actor")))
    readable = {}
    for name, pseudonym in parts:
        if name in record:
            subject = keys.by_pseudonym(str(pseudonym))
            readable[name] = subject.decrypt(str(record[name]), str(record["id"])) if subject else ERASED
    return {**record, **readable}


def _candidates(places: AuditPlaces, index: AuditIndex, query: Query) -> Iterator[dict[str, object]]:
    if query.request is not None:
        index.catch_up([query.tenant])
        found = index.find(query.request)
        if found and found[0] == query.tenant:
            yield found[1]
        return
    for segment in segments_in(places.log(query.tenant)):
        if query.since is None or not ended_before(segment, query.since):
            with suppress(FileNotFoundError):  # deleted meanwhile, because it was due
                yield from _records(segment)


def _records(segment: Segment) -> Iterator[dict[str, object]]:
    for number, line in enumerate(lines_in(segment.path), 1):
        try:
            yield record_in(line)
        except AuditError as error:
            raise AuditError(
                f"{segment.path}, line {number}: {error}. `llm-assets audit verify` says what was altered."
            ) from error


def _fits(record: dict[str, object], query: Query) -> bool:
    wanted = (("model", query.model), ("key", query.key), ("status", query.status), ("id", query.request))
    if any(value is not None and record.get(name) != value for name, value in wanted):
        return False
    moment = record.get("started_at") or record.get("ended_at") or record.get("at")
    if query.since is None and query.until is None:
        return True
    at = seconds(str(moment or record["sealed_at"]))
    return (query.since is None or at >= query.since) and (query.until is None or at <= query.until)
