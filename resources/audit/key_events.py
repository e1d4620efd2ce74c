"""Keys that were created or revoked, from the gateway's journal into the chain of their tenant.

The journal is read whole whenever it changed; a line's hash is its event's id, so it is sealed once, also
after the journal was compacted.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from resources.audit.chain import iso
from resources.audit.places import PLATFORM
from resources.audit.sealing import Sealer
from resources.audit.subject_keys import SubjectKeys
from resources.names import TENANT

EVENTS = {"created": "key_created", "revoked": "key_revoked"}
FACTS = ("name", "models", "risk_classes", "limits", "expires", "by", "replaces", "rotated_by")


class KeyEvents:
    """Follows one `keys.jsonl`."""

    def __init__(self, journal: Path, sealer: Sealer) -> None:
        self._journal, self._sealer = journal, sealer
        self._seen: set[str] = set()
        self._owners: dict[str, str] = {}
        self._read: tuple[int, int] | None = None

    def follow(self) -> int:
        """How many events were sealed."""
        try:
            stat = self._journal.stat()
        except FileNotFoundError:
            return 0
        if self._read == (stat.st_ino, stat.st_size):
            return 0
        content = self._journal.read_bytes()
        count = sum(self._line(line) for line in content[: content.rfind(b"\n") + 1].splitlines())
        self._read = (stat.st_ino, stat.st_size)
        return count

    def _line(self, line: bytes) -> int:
        try:
            event = json.loads(line)
            name, key = EVENTS.get(str(event["event"])), str(event["id"])
        except (ValueError, KeyError, TypeError):
            return 0  # a torn line, which the journal's next writer cuts off
        if isinstance(event.get("tenant"), str):
            self._owners[key] = event["tenant"]
        id = f"key-{hashlib.sha256(line).hexdigest()[:40]}"
        if name is None or id in self._seen:
            return 0
        self._seen.add(id)
        if self._sealer.index.find(id) is not None:
            return 0
        owner = self._owners.get(key, "")
        tenant = owner if TENANT.fullmatch(owner) else PLATFORM
        self._sealer.seal_one(tenant, lambda keys: _record(id, name, event, keys))
        return 1


def _record(id: str, name: str, event: dict[str, Any], keys: SubjectKeys) -> dict[str, Any]:
    at = event.get("at", event.get("created"))
    record = {"kind": "event", "event": name, "id": id, "key": event["id"]}
    record["at"] = iso(float(at)) if isinstance(at, int | float) else None
    record.update((fact, event[fact]) for fact in FACTS if fact in event)
    if actor := event.get("actor"):
        person = keys.subject(str(actor))
        record["actor"], record["personal_actor"] = person.pseudonym, person.encrypt({"actor": actor}, id)
    return record
