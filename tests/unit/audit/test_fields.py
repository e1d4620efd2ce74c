"""Every field of a record has its form, or is encrypted with its subject and erased with him."""

import json
from pathlib import Path
from typing import Any

import pytest

from resources.audit.fields import FORMS, SAMPLING, fits
from resources.audit.journal_events import JournalEvents, key_facts
from resources.audit.places import PLATFORM
from resources.audit.searching import ERASED, opened
from resources.audit.subject_keys import SubjectKeys
from tests.unit.audit.conftest import Log, MakeLog
from tests.unit.audit.spooling import request_event, response_event

MAIL, PESEL, PERSON = "jan.kowalski@example.com", "44051401359", "Jan Kowalski"
SUBJECT = "the-subject"
PERSONAL: dict[str, Any] = {
    "text": f"{PERSON}, {MAIL}",
    "mail": MAIL,
    "national number as a text": PESEL,
    "national number": int(PESEL),
    "fraction": float(f"0.{PESEL}"),
    "large fraction": float(f"4.{PESEL}"),
    "negative": -int(PESEL),
    "object": {"name": PERSON},
    "list": [MAIL, int(PESEL)],
    "name of a field": {MAIL: 1},
    "long text": MAIL + "x" * 10_000,
    "path": f"/v1/models/{MAIL}",
    "tenant's path": f"/t/{PESEL}/v1/chat/completions",
    "version": f"support_bot@{MAIL}",
}
SECRETS = (MAIL, PESEL, PERSON)
WHO = ("e", "id", "tenant", "actor", "subject")
"""Told by the gateway itself; who it is about stands in no record as it is."""
TEXTS = ("input", "output")
META = {
    *("kind", "id", "tenant", "seq", "previous", "hash", "sealed_at", "batch", "outcome", "started_at"),
    *("ended_at", "subject", "actor", "personal", "personal_actor"),
}
SAMPLED = (*SAMPLING, "stop", "something new")


def in_the_clear(log: Log) -> str:
    """All that lies below the state folder, but for what is encrypted and its keys."""
    log.sealer.index.catch_up()
    paths = [path for path in log.home.rglob("*") if path.is_file() and "keys" not in path.parts]
    return "\n".join(path.read_bytes().decode("utf-8", "replace") for path in paths)


def check(log: Log, ids: list[str]) -> None:
    """Nothing personal can be read, and every field has its form."""
    clear = in_the_clear(log)
    assert [secret for secret in SECRETS if secret in clear] == []
    records = [record for tenant in log.places.tenants() for record in log.records(tenant)]
    assert {record["id"] for record in records} >= set(ids)
    for record in records:
        for name, value in record.items():
            if name == "sampling":
                assert all(fits(SAMPLING, each, given) for each, given in (value or {}).items())
            elif name not in META:
                assert value is None or name == "requested" or fits(FORMS, name, value), (name, value)
        if record.get("requested") is not None:
            assert record["requested"].partition("@")[0] == record["model"]


@pytest.fixture
def log(make_log: MakeLog) -> Log:
    return make_log(pseudonymize=lambda text, _: text)


@pytest.mark.parametrize("kind", PERSONAL)
def test_no_field_of_an_exchange_keeps_in_the_clear_what_is_personal(log: Log, kind: str) -> None:
    value, ids = PERSONAL[kind], []
    for name in request_event("team-a"):
        if name not in WHO:
            ids.append(log.spool.exchange(subject=SUBJECT, **{name: value}))
    for name in SAMPLED:
        ids.append(log.spool.exchange(subject=SUBJECT, sampling={"top_p": 0.5, name: value}))
    for name in (*response_event("x"), *TEXTS):
        if name not in WHO:
            ids.append(log.spool.request(subject=SUBJECT, risk_class="high"))
            log.spool.response(ids[-1], **{name: value})
    for name in ("first_byte_ms", "output_sha256", "output_bytes", "prompt_tokens", "served_digest"):
        ids.append(log.spool.request(subject=SUBJECT))
        log.spool.write({"e": "aborted", "id": ids[-1], "at": 1763.5, name: value})
    log.collect()
    check(log, ids)
    keys = SubjectKeys(log.places.keys("team-a"))
    keys.begin()
    sampled = [record for record in log.records() if record["sampling"] == {"top_p": 0.5}]
    assert sampled
    texts = [json.dumps(opened(record, keys)) for record in sampled]
    assert any(secret in text for text in texts for secret in SECRETS)
    assert log.sealer.erase("team-a", SUBJECT, by="dpo", reason="asked")
    keys = SubjectKeys(log.places.keys("team-a"))
    keys.begin()
    for record in log.records():
        if record["kind"] == "request":
            assert opened(record, keys)["personal"] == ERASED
    assert log.faults() == ()


@pytest.mark.parametrize("kind", PERSONAL)
@pytest.mark.parametrize("tenant", ["team-a", None, PERSON])
def test_no_field_of_a_refusal_keeps_in_the_clear_what_is_personal(
    log: Log, kind: str, tenant: str | None
) -> None:
    refusal = {"e": "denied", "at": 1763.5, "tenant": tenant, "key": None, "model": None, "status": 404}
    refusal |= {"reason": "model", "path": "/v1/models", "requested": None, "remote": None, "count": 3}
    ids = []
    for name in refusal:
        if name not in WHO:
            ids.append(f"refused-{name}")
            log.spool.write(refusal | {"id": ids[-1], name: PERSONAL[kind]})
    log.collect()
    check(log, ids)
    chain = "team-a" if tenant == "team-a" else PLATFORM
    for record in log.records(chain):
        if "personal" in record:
            assert record["subject"]


def test_what_has_its_form_stands_in_the_clear(log: Log) -> None:
    sampling = {"temperature": 0.7, "top_p": 1, "seed": 42, "n": 2, "logprobs": True, "max_tokens": 4096}
    log.spool.exchange(sampling=sampling, path="/t/team-a/v1/chat/completions")
    log.spool.exchange(requested="support_bot", path="/v1/responses")
    log.spool.exchange(requested="other_bot", path="/t/team-b/v1/responses", sampling="odd")
    log.collect()
    first, second, third = log.records()
    assert (first["sampling"], first["path"]) == (sampling, "/t/team-a/v1/chat/completions")
    assert (first["requested"], second["requested"]) == ("support_bot@production", "support_bot")
    assert second["path"] == "/v1/responses"
    assert (third["requested"], third["path"], third["sampling"]) == (None, None, None)
    keys = SubjectKeys(log.places.keys("team-a"))
    keys.begin()
    hidden = opened(third, keys)["personal"]
    assert (hidden["requested"], hidden["path"]) == ("other_bot", "/t/team-b/v1/responses")
    assert hidden["sampling"] == "odd"
    assert opened(first, keys)["personal"]["host"] == "team-a.llm.localhost"


def test_a_key_that_is_named_after_a_person_is_erased_with_him(log: Log, tmp_path: Path) -> None:
    """`llm-assets keys create --name jan.kowalski@example.com` makes him the key's actor, too."""
    journal = tmp_path / "keys.jsonl"
    made = {"event": "created", "id": "k3fzabcd2345", "tenant": "team-a", "name": MAIL, "actor": MAIL}
    journal.write_text(json.dumps(made | {"created": 1763.5, "by": "root"}) + "\n")
    JournalEvents(journal, log.sealer, key_facts).follow()
    (record,) = log.records()
    assert MAIL not in in_the_clear(log)
    keys = SubjectKeys(log.places.keys("team-a"))
    keys.begin()
    assert opened(record, keys)["personal_actor"] == {"actor": MAIL, "name": MAIL}
    log.sealer.erase("team-a", MAIL, by="dpo", reason="asked")
    keys = SubjectKeys(log.places.keys("team-a"))
    keys.begin()
    assert opened(record, keys)["personal_actor"] == ERASED
