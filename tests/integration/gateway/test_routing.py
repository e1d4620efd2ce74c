"""Which deployment answers."""

import random
from collections import Counter

import httpx

from tests.integration.gateway.choosing import chosen
from tests.integration.gateway.gateways import Gateway, backend, error_of, route, tenant

DOOR = "/t/spread/v1/chat/completions"


def spread(gateway: Gateway, weights: tuple[int, int]) -> str:
    """A tenant with two versions of these weights; a key of it."""
    gateway.append("tenants", tenant("spread", {"support_bot": "limited"}))
    two = [backend("d1", weights[0]), backend("d2", weights[1], "v2", ("candidate",))]
    gateway.append("routes", route("spread", "support_bot", *two))
    return gateway.key("spread")


def version(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.headers["x-llm-version"])


def test_a_stable_key_always_gets_the_same_version(gateway: Gateway) -> None:
    generator = random.Random(7)
    for weights in ((90, 10), (50, 50), (1, 99)):
        key = spread(gateway, weights)
        known = dict(zip(("v1", "v2"), weights, strict=True))
        for number in range(40):
            user = f"user-{generator.random()}-é"
            expected = chosen(known, user)
            body = gateway.ask(key, path=DOOR, user=user)
            header = gateway.ask(key, path=DOOR, headers={"x-llm-affinity": f"user-{number}"}, user=user)
            assert version(body) == expected
            assert version(header) == chosen(known, f"user-{number}")


def test_without_a_key_requests_spread_by_weight(gateway: Gateway) -> None:
    key = spread(gateway, (80, 20))
    found = Counter(version(gateway.ask(key, path=DOOR)) for _ in range(300))
    assert 200 < found["v1"] < 280  # four standard deviations


def test_a_version_is_asked_by_its_label_or_an_alias(gateway: Gateway) -> None:
    key = spread(gateway, (100, 0))
    for name, expected in (
        ("@production", "v1"),
        ("@candidate", "v2"),
        ("@v2", "v2"),
        ("@v1", "v1"),
        ("", "v1"),
    ):
        assert version(gateway.ask(key, path=DOOR, model=f"support_bot{name}")) == expected


def test_a_moved_route_counts_from_the_next_request_on(gateway: Gateway) -> None:
    key = spread(gateway, (100, 0))
    assert version(gateway.ask(key, path=DOOR)) == "v1"
    promoted = backend("d2", 100, "v2", ("production",))
    gateway.append("routes", route("spread", "support_bot", promoted))
    assert version(gateway.ask(key, path=DOOR)) == "v2"
    assert error_of(gateway.ask(key, path=DOOR, model="support_bot@v1"))[0] == 404
    gateway.append("tenants", {"tenant": "spread", "gone": True})
    assert error_of(gateway.ask(key, path=DOOR)) == (401, "invalid_api_key")
