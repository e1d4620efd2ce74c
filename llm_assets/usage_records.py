"""What was asked on a day, by the sealed audit records; their fields are in `resources/audit/records.py`."""

from collections.abc import Iterator
from datetime import date

from llm_assets.installation.settings import Settings
from llm_assets.usage import Asked, bounds_of
from resources.audit.chain import ended_before, seconds
from resources.audit.places import PLATFORM, AuditPlaces
from resources.audit.segments import Segment, lines_in, record_in, segments_in


def asked_on(settings: Settings, day: date) -> Iterator[Asked]:
    """Every request of the day that a version was asked, of all tenants.

    Raises:
        AuditError: A line of the log is no record.
    """
    start, end = bounds_of(day)
    places = AuditPlaces(folder=settings.audit)
    for tenant in places.tenants():
        if tenant != PLATFORM:
            for segment in segments_in(places.log(tenant)):
                if not ended_before(segment, start):
                    yield from _asked_in(segment, tenant, start, end)


def _asked_in(segment: Segment, tenant: str, start: float, end: float) -> Iterator[Asked]:
    for line in lines_in(segment.path):
        record = record_in(line)
        if record["kind"] != "request" or not record.get("version") or not record.get("started_at"):
            continue
        if start <= seconds(str(record["started_at"])) < end:
            yield _asked(record, tenant)


def _asked(record: dict[str, object], tenant: str) -> Asked:
    return Asked(
        tenant=tenant,
        model=str(record["model"]),
        version=str(record["version"]),
        failed=record["outcome"] != "ok",
        prompt_tokens=_count(record["prompt_tokens"]),
        completion_tokens=_count(record["completion_tokens"]),
    )


def _count(tokens: object) -> int:
    """None where the server did not say; the record's form lets no other than a whole number through."""
    return tokens if isinstance(tokens, int) else 0
