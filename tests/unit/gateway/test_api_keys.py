"""API keys: what is kept of them, and what a revocation and a rotation leave."""

import hashlib
import multiprocessing
import time
from pathlib import Path

import pytest

from resources.gateway.api_keys import KEY, ApiKey, create_key, keys, revoke, rotate
from resources.gateway.errors import GatewayError
from resources.gateway.journals import Journal
from resources.gateway.limits import Limits


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "keys.jsonl")


def make(journal: Journal, tenant: str = "team-a", expires: float | None = None) -> tuple[ApiKey, str]:
    return create_key(
        journal,
        tenant=tenant,
        name="ci",
        actor="anna",
        by="olga",
        models=("support_bot",),
        risk_classes=("minimal", "limited"),
        limits=Limits(requests_per_minute=60),
        expires=expires,
    )


def test_a_key_says_its_id_and_256_random_bits(journal: Journal) -> None:
    (one, text), (other, other_text) = make(journal), make(journal)
    match = KEY.fullmatch(text)
    assert match
    assert match[1] == one.id != other.id
    assert match[2] != KEY.fullmatch(other_text)[2]  # type: ignore[index]


def test_only_the_hash_of_a_key_is_kept(journal: Journal) -> None:
    key, text = make(journal)
    (event,) = journal.events()
    assert event["hash"] == hashlib.sha256(text.encode()).hexdigest()
    assert text.rpartition("_")[2] not in journal.path.read_text() + repr(key)


def test_what_was_made_is_listed_as_it_was_made(journal: Journal) -> None:
    key, _ = make(journal, expires=time.time() + 60)
    make(journal, tenant="team-b")
    assert keys(journal, "team-a") == (key,)
    assert key.limits == Limits(requests_per_minute=60)
    assert (key.actor, key.by, key.models) == ("anna", "olga", ("support_bot",))
    assert [each.tenant for each in keys(journal)] == ["team-a", "team-b"]


def test_a_key_ends_when_it_expires(journal: Journal) -> None:
    key, _ = make(journal, expires=1000.0)
    assert (key.state(999.9), key.state(1000.0)) == ("active", "expired")


def test_a_revoked_key_stays_revoked_and_says_by_whom(journal: Journal) -> None:
    key, _ = make(journal)
    other, _ = make(journal)
    revoke(journal, [key.id], by="olga")
    revoke(journal, [key.id], by="someone later")
    seen, kept = keys(journal)
    assert (seen.state(time.time()), seen.revoked_by, kept) == ("revoked", "olga", other)
    assert len(list(journal.events())) == 3


def test_no_later_line_gives_a_revoked_key_back(journal: Journal) -> None:
    key, _ = make(journal)
    (created,) = journal.events()
    revoke(journal, [key.id], by="olga")
    journal.append(created)
    assert keys(journal)[0].state(time.time()) == "revoked"


def test_of_several_keys_none_is_revoked_where_one_is_not_known(journal: Journal) -> None:
    key, _ = make(journal)
    with pytest.raises(GatewayError, match=r"no key with the id 'aaaaaaaaaaaa'.*keys list"):
        revoke(journal, [key.id, "aaaaaaaaaaaa"], by="olga")
    assert keys(journal) == (key,)


def test_a_rotated_key_may_the_same_and_the_old_one_ends_at_once(journal: Journal) -> None:
    old, text = make(journal)
    new, new_text = rotate(journal, old.id, by="petr")
    seen = {key.id: key for key in keys(journal)}
    assert seen[old.id].state(time.time()) == "revoked"
    assert seen[new.id] == new
    assert (new.models, new.limits, new.tenant, new.actor) == (old.models, old.limits, "team-a", "anna")
    assert (new.replaces, new.by, new_text == text) == (old.id, "petr", False)


def test_with_an_overlap_the_old_key_holds_for_that_long(journal: Journal) -> None:
    old, _ = make(journal)
    rotate(journal, old.id, by="petr", overlap_s=3600)
    kept = keys(journal)[0]
    now = time.time()
    assert (kept.state(now), kept.state(now + 3601)) == ("active", "expired")
    assert kept.by == "olga"
    *_, last = journal.events()
    assert (last["id"], last["rotated_by"]) == (old.id, "petr")


def test_an_overlap_makes_no_key_live_longer_than_it_would(journal: Journal) -> None:
    old, _ = make(journal, expires=time.time() + 60)
    rotate(journal, old.id, by="petr", overlap_s=3600)
    assert keys(journal)[0].expires == old.expires


@pytest.mark.parametrize("state", ["revoked", "expired"])
def test_a_key_that_has_ended_is_not_rotated(journal: Journal, state: str) -> None:
    key, _ = make(journal, expires=1000.0 if state == "expired" else None)
    if state == "revoked":
        revoke(journal, [key.id], by="olga")
    with pytest.raises(GatewayError, match=rf"is {state}; only one that holds.*keys create --tenant team-a"):
        rotate(journal, key.id, by="petr", overlap_s=3600)
    assert len(keys(journal)) == 1


def _rotate(path: Path, key_id: str) -> None:
    rotate(Journal(path), key_id, by="petr", overlap_s=3600)


def test_a_revocation_holds_against_a_rotation_at_the_same_moment(journal: Journal) -> None:
    for _ in range(3):
        key, _text = make(journal)
        rotation = multiprocessing.get_context("fork").Process(target=_rotate, args=(journal.path, key.id))
        rotation.start()
        revoke(journal, [key.id], by="olga")
        rotation.join()
        (seen,) = [each for each in keys(journal) if each.id == key.id]
        assert seen.state(time.time()) == "revoked"
        *_, last = [event for event in journal.events() if event["id"] == key.id]
        assert last["event"] == "revoked"


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="concurrent_requests 0 is no limit"):
        Limits(concurrent_requests=0)
