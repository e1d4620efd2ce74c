"""A data subject's key is destroyed: the chain still verifies, and nobody can read what it protected."""

import json
from pathlib import Path

import pytest

from resources.audit.places import AuditError
from resources.audit.searching import ERASED, Query, opened, search
from resources.audit.subject_keys import SLOT_BYTES, SLOTS, SubjectKeys
from tests.unit.audit.conftest import Log
from tests.unit.audit.test_sealing import everything_below

NAME, TEXT = "anna.nowak@example.org", "the quick brown fox asks for a loan"


def high_risk(log: Log, name: str = NAME) -> str:
    body = json.dumps({"messages": [{"role": "user", "content": TEXT}]})
    return log.fill(1, risk_class="high", input=body, output=TEXT.upper(), subject=name, actor=name)[0]


def keys_of(log: Log) -> SubjectKeys:
    keys = SubjectKeys(log.places.keys("team-a"))
    keys.begin()
    return keys


def test_an_erased_subject_is_unreadable_and_the_chain_still_verifies(log: Log) -> None:
    high_risk(log)
    high_risk(log, "somebody else")
    (before,) = search(log.places, log.sealer.index, Query(tenant="team-a", subject=NAME))
    subject = keys_of(log).find(NAME)
    assert subject is not None
    assert TEXT in json.dumps(opened(before, keys_of(log)))
    assert log.sealer.erase("team-a", NAME, by="dpo", reason="asked on 22 November")
    assert log.faults() == ()
    content = everything_below(log.home)
    for secret in (NAME.encode(), TEXT.encode(), TEXT.upper().encode(), subject.key):
        assert secret not in content
    assert opened(log.records()[0], keys_of(log))["personal"] == ERASED
    assert TEXT in json.dumps(opened(log.records()[1], keys_of(log))["personal"])
    assert list(search(log.places, log.sealer.index, Query(tenant="team-a", subject=NAME))) == []
    tombstone = log.records()[-1]
    assert (tombstone["event"], tombstone["by"]) == ("erasure", "dpo")
    assert tombstone["subject"] == log.records()[0]["subject"]


def test_who_is_erased_and_comes_back_is_another_pseudonym(log: Log) -> None:
    """The collector holds the key in its memory when the command line destroys it."""
    high_risk(log)
    other = Log(log.home)
    assert other.sealer.erase("team-a", NAME, by="dpo", reason="asked")
    other.close()
    high_risk(log)
    first, last = log.records()[0], log.records()[-1]
    assert first["subject"] != last["subject"]
    assert opened(first, keys_of(log))["personal"] == ERASED
    assert TEXT in json.dumps(opened(last, keys_of(log)))
    assert log.faults() == ()


def test_an_actor_is_erased_from_the_requests_that_he_made_for_others(log: Log) -> None:
    log.fill(1, actor="operator", subject="customer")
    log.sealer.erase("team-a", "operator", by="dpo", reason="asked")
    record = opened(log.records()[0], keys_of(log))
    assert record["personal_actor"] == ERASED
    assert record["personal"]["subject"] == "customer"


def test_somebody_who_was_never_seen_is_not_erased(log: Log) -> None:
    log.fill(1)
    assert not log.sealer.erase("team-a", "nobody", by="dpo", reason="asked")
    assert len(log.records()) == 1


def test_a_ciphertext_that_is_moved_to_another_record_does_not_open(log: Log) -> None:
    log.fill(2)
    first, second = log.records()
    with pytest.raises(AuditError, match="was not encrypted for it"):
        opened({**first, "personal": second["personal"]}, keys_of(log))


def test_a_slot_that_a_kill_tore_is_cut_off_and_written_again(log: Log) -> None:
    log.fill(1, subject="one", actor="one")
    slots: Path = log.places.keys("team-a") / SLOTS
    with slots.open("ab") as stream:
        stream.write(b"torn")
    log.begin()
    log.fill(1, subject="two", actor="two")
    assert slots.stat().st_size == 2 * SLOT_BYTES
    assert {opened(each, keys_of(log))["personal"]["subject"] for each in log.records()} == {"one", "two"}
