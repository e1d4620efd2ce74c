"""What is written down of an exchange, and which of it only the data subject's key opens.

In the clear: what, when, with which model and digest, how it ended, each in its form (`fields.py`). As keyed
hashes: `subject` and `actor`, the pseudonyms of two keys (`subject_keys.py`). Encrypted: `personal`, by the
subject's key, with his name, the peer's address, the host's name, whatever had another form than its field
and, for high-risk models, what Presidio left of the texts; `personal_actor`, by the actor's key, with his
name, where another acts for the subject. The fields are those of Regulation (EU)
2024/1689, Art. 12, as docs/reference/audit.md lists them.
"""

from collections.abc import Callable

from resources.audit.chain import iso
from resources.audit.fields import FORMS, fits, parted, shortened
from resources.audit.joining import Exchange
from resources.audit.places import PLATFORM
from resources.audit.subject_keys import Subject, SubjectKeys
from resources.names import TENANT

Pseudonymize = Callable[[str, Subject], str]
"""A text without its personal data; see `personal_text.py`."""

ASKED = (
    "via",
    "key",
    "host",
    "path",
    "model",
    "requested",
    "version",
    "digest",
    "deployment",
    "risk_class",
    "stream",
    "sampling",
    "input_sha256",
    "input_bytes",
)
ANSWERED = (
    "status",
    "prompt_tokens",
    "completion_tokens",
    "finish_reason",
    "served_digest",
    "output_sha256",
    "output_bytes",
    "first_byte_ms",
    "reason",
)
REFUSED = ("key", "status", "reason", "path", "model", "requested", "count")
LATEST = 2**32
"""Of times; the year 2106."""


def tenant_of(exchange: Exchange) -> str:
    """Whose chain it belongs to; what names no possible tenant is the platform's."""
    event = exchange.request or exchange.end or {}
    tenant = event.get("tenant")
    return tenant if isinstance(tenant, str) and TENANT.fullmatch(tenant) else PLATFORM


def record_of(exchange: Exchange, keys: SubjectKeys, pseudonymize: Pseudonymize) -> dict[str, object]:
    """The record of an exchange, but for its place in the chain."""
    if exchange.request is not None:
        return _answered(exchange, keys, pseudonymize)
    if exchange.end is not None:
        return _refused(exchange, keys)
    line = exchange.lines[0]
    spool_line = {"file": line.file.path.name, "offset": line.offset, "size_bytes": line.size}
    return {"kind": "unreadable", "id": exchange.id, "outcome": "error", "spool": spool_line}


def _answered(exchange: Exchange, keys: SubjectKeys, pseudonymize: Pseudonymize) -> dict[str, object]:
    request, end = exchange.request or {}, exchange.end or {}
    record, hidden = parted(request, ASKED)
    answered, more = parted(end, ANSWERED)
    record |= answered
    record["kind"], record["id"] = "request", exchange.id
    record["started_at"], record["ended_at"] = _time(request), _time(end)
    latency = latency_ms(request, end)
    record["latency_ms"] = latency if fits(FORMS, "latency_ms", latency) else None
    record["outcome"] = outcome_of(exchange.end)
    _add_people(record, request, hidden | more, _texts(request, end, pseudonymize), keys)
    return record


def _add_people(
    record: dict[str, object],
    request: dict[str, object],
    hidden: dict[str, object],
    texts: Callable[[Subject], dict[str, str]],
    keys: SubjectKeys,
) -> None:
    actor = str(request.get("actor") or request.get("key") or "unknown")
    name = str(request.get("subject") or actor)
    subject = keys.subject(name)
    personal = {"subject": name, "remote": shortened(request.get("remote")), **hidden, **texts(subject)}
    if name == actor:
        record["actor"] = subject.pseudonym
    else:
        acting = keys.subject(actor)
        record["actor"] = acting.pseudonym
        record["personal_actor"] = acting.encrypt({"actor": actor}, str(record["id"]))
    record["subject"] = subject.pseudonym
    record["personal"] = subject.encrypt(personal, str(record["id"]))


def _texts(
    request: dict[str, object], end: dict[str, object], pseudonymize: Pseudonymize
) -> Callable[[Subject], dict[str, str]]:
    """Input and output, which the gateway gives of high-risk models alone."""
    given = {"input": request.get("input"), "output": end.get("output")}
    texts = {name: text for name, text in given.items() if isinstance(text, str)}
    return lambda subject: {name: pseudonymize(text, subject) for name, text in texts.items()}


def _refused(exchange: Exchange, keys: SubjectKeys) -> dict[str, object]:
    """A refusal, or an end whose request is not there. The peer is its subject: nobody else is known."""
    end = exchange.end or {}
    record, hidden = parted(end, REFUSED)
    refused = end.get("e") == "denied"
    record["kind"], record["id"] = "denied" if refused else "request", exchange.id
    record["ended_at"] = _time(end)
    record["outcome"] = "denied" if refused else "unmatched"
    if tenant_of(exchange) == PLATFORM and end.get("tenant") is not None:
        hidden["tenant"] = shortened(end["tenant"])
    remote = shortened(end.get("remote"))
    if remote or hidden:
        subject = keys.subject(f"remote:{remote or 'unknown'}")
        record["subject"] = subject.pseudonym
        record["personal"] = subject.encrypt({"remote": remote, **hidden}, exchange.id)
    return record


def outcome_of(end: dict[str, object] | None) -> str:
    """How a request that was let in ended: ok, error, aborted, or interrupted where nothing ended it."""
    if end is None:
        return "interrupted"
    if end["e"] == "aborted":
        return "aborted"
    status = end.get("status")
    return "ok" if isinstance(status, int) and status < 400 and not end.get("reason") else "error"


def latency_ms(request: dict[str, object], end: dict[str, object]) -> float | None:
    """Milliseconds from a request to its end; None where there is none."""
    measured, began, ended = end.get("ms"), request.get("at"), end.get("at")
    if isinstance(measured, int | float):
        return measured
    if isinstance(ended, int | float) and isinstance(began, int | float):
        return round((ended - began) * 1000, 3)
    return None


def _time(event: dict[str, object]) -> str | None:
    at = event.get("at")
    return iso(at) if isinstance(at, int | float) and 0 <= at < LATEST else None
