"""API keys of the gateway: made, listed, revoked and rotated in the journal `keys.jsonl`.

A key is `llma_<id>_<secret>`. The secret is 256 random bits and is shown once; what is kept is the SHA-256 of
the whole text, which nobody can turn back (a slow hash helps passwords, which people choose). The id is no
secret: it stands in records, and a scanner for leaked secrets finds the form.
"""

import base64
import hashlib
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from resources.gateway.errors import GatewayError
from resources.gateway.journals import Journal
from resources.gateway.limits import Limits

KEY = re.compile(r"llma_([a-z2-7]{12})_([A-Za-z0-9_-]{43})")
KEYS_FILE = "keys.jsonl"

State = Literal["active", "revoked", "expired"]


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """What is known of a key; neither the secret nor its hash.

    `models` and `risk_classes` are None where it may ask all that its tenant may. Times are epoch seconds.
    """

    id: str
    tenant: str
    name: str
    actor: str
    models: tuple[str, ...] | None
    risk_classes: tuple[str, ...] | None
    limits: Limits
    created: float
    expires: float | None
    by: str
    replaces: str | None = None
    revoked: float | None = None
    revoked_by: str | None = None

    def state(self, now: float) -> State:
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "active"


def create_key(
    journal: Journal,
    *,
    tenant: str,
    name: str,
    actor: str,
    by: str,
    models: tuple[str, ...] | None = None,
    risk_classes: tuple[str, ...] | None = None,
    limits: Limits | None = None,
    expires: float | None = None,
) -> tuple[ApiKey, str]:
    """A new key and its text, which is nowhere kept. The gateway takes it from the next request on."""
    text = _new_text()
    event = {
        **_identity(text),
        "tenant": tenant,
        "name": name,
        "actor": actor,
        "models": models,
        "risk_classes": risk_classes,
        "limits": (limits or Limits()).as_json(),
        "created": time.time(),
        "expires": expires,
        "by": by,
    }
    journal.append(event)
    return _api_key(event), text


def revoke(journal: Journal, ids: Iterable[str], *, by: str) -> tuple[ApiKey, ...]:
    """Revokes the keys, all in one step; refused from the next request on. One that is revoked stays so.

    Raises:
        GatewayError: One of them does not exist. None is revoked then.
    """
    wanted = tuple(dict.fromkeys(ids))

    def revocations(events: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        known = {key.id: key for key in _keys(events)}
        for key in [_named(known, each) for each in wanted]:
            if key.revoked is None:
                yield {"event": "revoked", "id": key.id, "at": time.time(), "by": by}

    journal.amend(revocations)
    return tuple(key for key in keys(journal) if key.id in wanted)


def rotate(journal: Journal, key_id: str, *, by: str, overlap_s: float = 0) -> tuple[ApiKey, str]:
    """A new key that may what the old one may; the old one goes on for `overlap_s` seconds, or ends at once.

    Both are one step: there is no moment at which neither of them holds.

    Raises:
        GatewayError: There is no such key, or it was revoked or has expired.
    """
    text, now = _new_text(), time.time()
    new: dict[str, Any] = {}

    def exchange(events: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        seen = list(events)
        old = _named({key.id: key for key in _keys(seen)}, key_id)
        if old.state(now) != "active":
            raise GatewayError(
                f"The key {key_id} of {old.tenant} is {old.state(now)}; only one that holds can be rotated. "
                f"Make a new one: llm-assets keys create --tenant {old.tenant} --name {old.name}"
            )
        made = next(each for each in reversed(seen) if each["event"] == "created" and each["id"] == key_id)
        new.update({**made, **_identity(text), "created": now, "by": by, "replaces": key_id})
        yield new
        if overlap_s > 0:
            ends = min(now + overlap_s, made["expires"] or float("inf"))
            yield {**made, "expires": ends, "at": now, "rotated_by": by}
        else:
            yield {"event": "revoked", "id": key_id, "at": now, "by": by}

    journal.amend(exchange)
    return _api_key(new), text


def keys(journal: Journal, tenant: str | None = None) -> tuple[ApiKey, ...]:
    """Every key that was ever made, oldest first; of one tenant where one is named."""
    return tuple(key for key in _keys(journal.events()) if tenant in (None, key.tenant))


def _keys(events: Iterable[dict[str, Any]]) -> Iterator[ApiKey]:
    """A revocation is final: no later line gives the key back."""
    made: dict[str, dict[str, Any]] = {}
    revoked: dict[str, dict[str, Any]] = {}
    for event in events:
        if event["event"] == "created":
            made[event["id"]] = event
        elif event["event"] == "revoked":
            revoked.setdefault(event["id"], event)
    return (_api_key(event, revoked.get(key_id)) for key_id, event in made.items())


def _named(known: dict[str, ApiKey], key_id: str) -> ApiKey:
    if key_id not in known:
        raise GatewayError(
            f"There is no key with the id {key_id!r}; `llm-assets keys list` shows the ids "
            "(llma_<id>_… in a key's text)."
        )
    return known[key_id]


def _new_text() -> str:
    key_id = base64.b32encode(secrets.token_bytes(8)).decode().lower()[:12]
    return f"llma_{key_id}_{secrets.token_urlsafe(32)}"


def _identity(text: str) -> dict[str, str]:
    match = KEY.fullmatch(text)
    assert match
    return {"event": "created", "id": match[1], "hash": hashlib.sha256(text.encode()).hexdigest()}


def _api_key(event: dict[str, Any], revoked: dict[str, Any] | None = None) -> ApiKey:
    return ApiKey(
        **{name: event[name] for name in ("id", "tenant", "name", "actor", "created", "expires", "by")},
        models=_tuple(event["models"]),
        risk_classes=_tuple(event["risk_classes"]),
        limits=Limits(**(event["limits"] or {})),
        replaces=event.get("replaces"),
        revoked=revoked["at"] if revoked else None,
        revoked_by=revoked["by"] if revoked else None,
    )


def _tuple(names: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)
