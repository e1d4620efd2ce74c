"""Keys as the platform makes them, at the gateway's filter."""

import time
from pathlib import Path

import pytest

from resources.gateway.api_keys import create_key, revoke, rotate
from resources.gateway.journals import Journal
from resources.gateway.limits import Limits
from tests.integration.gateway.gateways import Gateway

UNKNOWN = 401


@pytest.fixture
def journal(gateway: Gateway) -> Journal:
    return Journal(Path(gateway.folder) / "keys.jsonl")


def made(journal: Journal, **rights: object) -> tuple[str, str]:
    """A key of team-a: its id and its text."""
    key, text = create_key(journal, tenant="team-a", name="ci", actor="ci", by="tests", **rights)  # type: ignore[arg-type]
    return key.id, text


def test_a_key_asks_what_it_was_made_for_from_the_next_request_on(gateway: Gateway, journal: Journal) -> None:
    _, key = made(journal, models=("support_bot",), risk_classes=("limited",))
    assert gateway.ask(key).status_code == 200
    assert gateway.ask(key, model="screening").status_code == 403
    _, other = made(journal, risk_classes=("high",))
    assert gateway.ask(other).status_code == 403
    assert gateway.ask(other, model="screening").status_code == 200


def test_a_revocation_is_final_whatever_the_journal_says_later(gateway: Gateway, journal: Journal) -> None:
    key_id, key = made(journal)
    line = next(event for event in journal.events() if event.get("id") == key_id)
    assert gateway.ask(key).status_code == 200
    revoke(journal, [key_id], by="tests")
    assert gateway.ask(key).status_code == UNKNOWN
    journal.append(line)
    assert gateway.ask(key).status_code == UNKNOWN


def test_a_rotated_key_ends_at_once_or_after_the_overlap(gateway: Gateway, journal: Journal) -> None:
    old_id, old = made(journal, models=("support_bot",))
    new, text = rotate(journal, old_id, by="tests", overlap_s=1.5)
    assert [gateway.ask(key).status_code for key in (old, text)] == [200, 200]
    assert gateway.ask(text, model="screening").status_code == 403
    time.sleep(1.6)
    assert [gateway.ask(key).status_code for key in (old, text)] == [UNKNOWN, 200]
    _, last = rotate(journal, new.id, by="tests")
    assert [gateway.ask(key).status_code for key in (text, last)] == [UNKNOWN, 200]


def test_a_key_ends_when_it_expires_and_its_limits_count(gateway: Gateway, journal: Journal) -> None:
    _, key = made(journal, expires=time.time() + 1, limits=Limits(requests_per_minute=1))
    assert [gateway.ask(key).status_code for _ in range(2)] == [200, 429]
    time.sleep(1.1)
    assert gateway.ask(key).status_code == UNKNOWN
