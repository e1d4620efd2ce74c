"""What administrators did, from the gateway's journals into the chain of the tenant: keys and routes.

A line is known by its file, place and content, so it is sealed once, also when it is read again from the
beginning. A journal that was replaced (compacted) is another file: what stands in it is sealed anew, as what
holds from then on.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from resources.audit.chain import iso
from resources.audit.places import PLATFORM
from resources.audit.sealing import Sealer
from resources.audit.subject_keys import SubjectKeys
from resources.json_values import Json
from resources.names import TENANT

KEY_EVENTS = {"created": "key_created", "revoked": "key_revoked"}
KEY_FACTS = ("models", "risk_classes", "limits", "expires", "by", "replaces", "rotated_by")
BACKEND_FACTS = ("deployment", "version", "digest", "weight", "names")

Facts = Callable[[Json, SubjectKeys, str], Json | None]
"""What is kept of a line: given it, the tenant's keys and the record's id; None: nothing."""


class JournalEvents:
    """Follows one journal."""

    def __init__(self, journal: Path, sealer: Sealer, facts: Facts) -> None:
        self._journal, self._sealer, self._facts = journal, sealer, facts
        self._owners: dict[str, str] = {}  # whose key, since a revocation does not say it
        self._inode, self._position = 0, 0

    def follow(self) -> int:
        """How many events were sealed."""
        try:
            with self._journal.open("rb") as stream:
                stat = os.fstat(stream.fileno())
                if stat.st_ino != self._inode or stat.st_size < self._position:
                    self._inode, self._position = stat.st_ino, 0
                stream.seek(self._position)
                return sum(self._lines(stream))
        except FileNotFoundError:
            return 0

    def _lines(self, stream: Iterable[bytes]) -> Iterator[int]:
        """What cannot be sealed now stays before the position."""
        for line in stream:
            if line.endswith(b"\n"):
                yield self._line(line)
                self._position += len(line)

    def _line(self, line: bytes) -> int:
        try:
            event = dict(json.loads(line))
        except (ValueError, TypeError):
            return 0  # the gateway names it
        if isinstance(event.get("tenant"), str):
            self._owners[str(event.get("id"))] = event["tenant"]
        seen = f"{self._journal.name} {self._inode} {self._position} ".encode() + line
        id = f"event-{hashlib.sha256(seen).hexdigest()[:40]}"
        if self._sealer.index.find(id) is not None:
            return 0
        return self._seal(id, event)

    def _seal(self, id: str, event: Json) -> int:
        owner = str(event.get("tenant") or self._owners.get(str(event.get("id"))))
        tenant = owner if TENANT.fullmatch(owner) else PLATFORM
        sealed = self._sealer.seal_one(tenant, lambda keys: self._record(id, event, keys))
        return int(sealed)

    def _record(self, id: str, event: Json, keys: SubjectKeys) -> Json | None:
        facts = self._facts(event, keys, id)
        return {"kind": "event", "id": id, **facts} if facts else None


def key_facts(event: Json, keys: SubjectKeys, id: str) -> Json | None:
    """Of `keys.jsonl`, but for the key's hash; its name and who uses it under that person's own key."""
    name = KEY_EVENTS.get(str(event.get("event")))
    if name is None:
        return None
    at = event.get("at", event.get("created"))
    facts = {
        "event": name,
        "key": event.get("id"),
        "at": iso(float(at)) if isinstance(at, int | float) else None,
    }
    facts.update((fact, event[fact]) for fact in KEY_FACTS if fact in event)
    if actor := event.get("actor"):
        person, named = keys.subject(str(actor)), {"actor": actor, "name": event.get("name")}
        facts |= {"actor": person.pseudonym, "personal_actor": person.encrypt(named, id)}
    return facts


def route_facts(event: Json, keys: SubjectKeys, id: str) -> Json | None:
    """Of `routes.jsonl`: a deployment, promotion, rollback or end of one; not the server's own key."""
    if not isinstance(event.get("backends"), list):
        return None
    backends = [{fact: each.get(fact) for fact in BACKEND_FACTS} for each in event["backends"]]
    return {"event": "route", "model": event.get("model"), "backends": backends}
