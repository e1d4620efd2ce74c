"""2,000 requests over ten promotions and rollbacks, before real vLLM servers: a quarter of an hour.

Run with `make test-long`, or `pytest -m long tests/e2e/test_moves.py`. Prints what it saw.
"""

from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.adapted_models import NAMES
from tests.e2e.test_gateway import Door, door
from tests.e2e.test_serving import merged
from tests.hammer import KINDS
from tests.integration.door.test_publishing import deploy

__all__ = ["door"]

pytestmark = [pytest.mark.engine, pytest.mark.long]

MOVES = 10
REQUESTS = 2_000


def test_no_request_of_two_thousand_fails_over_ten_moves(door: Door, adapted: Path) -> None:
    versions = [merged(door.serving.store, adapted, name) for name in NAMES]
    deploy(door.serving, versions[0], log=print)
    with door.hammer(threads_of_a_kind=2) as hammer:
        for move in range(1, MOVES + 1):
            deploy(door.serving, versions[move % 2], log=print)
            hammer.wait_for(REQUESTS // MOVES, timeout_s=300)
    seen = Counter((each.kind, each.status) for each in hammer.answers)
    print(f"{len(hammer.answers):,} requests over {MOVES} moves: {dict(seen)}")
    assert len(hammer.answers) >= REQUESTS
    assert hammer.failed == []
    assert {each.kind for each in hammer.answers} == set(KINDS)
    assert {each.digest for each in hammer.answers} == {each.digest for each in versions}
    asked = Counter(each.request_id for each in hammer.answers)
    assert set(asked.values()) == {1}
    assert Counter(record["id"] for record in door.records("request")) == asked
    answered = door.records("response")
    assert Counter(record["id"] for record in answered) == asked
    assert {(record["status"], record["reason"]) for record in answered} == {(200, None)}
