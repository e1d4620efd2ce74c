"""Sealed records on their way to somewhere else, in order, at least once, from a position on the disk."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from resources.audit.places import AuditError, AuditPlaces
from resources.audit.segments import Segment, record_in, segments_in
from resources.durable_files import private_folder, replace_file
from resources.errors import LlmAssetsError

BATCH = 500

Send = Callable[[Sequence[dict[str, object]]], None]
"""Takes records, or raises ShippingError; may be given the same ones again."""

PRIVATE = ("personal", "personal_actor")
"""Fields that never leave for a place where no key can be destroyed."""


class ShippingError(LlmAssetsError):
    """A place that records are shipped to does not take them."""


class Shipper:
    """One destination, by name."""

    def __init__(self, places: AuditPlaces, name: str, send: Send) -> None:
        self._places, self._send = places, send
        self._folder = private_folder(places.positions / name)

    def ship(self) -> int:
        """Everything that was sealed since; how many records were sent.

        Raises:
            ShippingError: The destination does not take them now; the next call goes on from there.
        """
        return sum(self._tenant(tenant) for tenant in self._places.tenants())

    def _tenant(self, tenant: str) -> int:
        count, (first, offset) = 0, self._position(tenant)
        for segment in segments_in(self._places.log(tenant)):
            if segment.first < first:
                continue
            start = offset if segment.first == first else 0
            for records, end in _batches(segment, start):
                self._send([_without_private(record) for record in records])
                replace_file(self._file(tenant), json.dumps([segment.first, end]), sync_folder=True)
                count += len(records)
        return count

    def _position(self, tenant: str) -> tuple[int, int]:
        path = self._file(tenant)
        first, offset = json.loads(path.read_bytes()) if path.exists() else (0, 0)
        return int(first), int(offset)

    def _file(self, tenant: str) -> Path:
        return self._folder / f"{tenant}.json"


def _batches(segment: Segment, offset: int) -> Iterator[tuple[list[dict[str, object]], int]]:
    """Whole lines behind `offset`, and where each batch of them ends."""
    records: list[dict[str, object]] = []
    try:
        stream = segment.path.open("rb")
    except FileNotFoundError:  # deleted meanwhile, because it was due
        return
    with stream:
        stream.seek(offset)
        for line in stream:
            if not line.endswith(b"\n"):
                break
            offset += len(line)
            try:
                records.append(record_in(line))
            except AuditError:
                continue  # somebody edited it: `verify` names it
            if len(records) == BATCH:
                yield records, offset
                records = []
    if records:
        yield records, offset


def _without_private(record: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in record.items() if name not in PRIVATE}
