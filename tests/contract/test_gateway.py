"""What holds of the gateway seam, whoever fills it (`resources/seams/gateway.py`).

Another implementation is one more parameter of `site`.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from resources.seams.serving import WHOLE, Backend, Route
from tests.contract.gateway_sites import BACKENDS, TENANT, Site, local_site

MODEL, OTHER = "support_bot", "faq"
DIGESTS = {(each.model, each.version): each.digest for each in BACKENDS}


@pytest.fixture(params=["local"])
def idle(tmp_path: Path) -> Iterator[Site]:
    """No gateway runs yet."""
    with local_site(tmp_path / "home") as site:
        yield site


@pytest.fixture
def site(idle: Site) -> Site:
    idle.start()
    return idle


def route(site: Site, *versions: str, model: str = MODEL) -> Route:
    known = {each.version: each for each in BACKENDS if each.model == model}
    backends = tuple(
        Backend(
            id=known[version].id,
            version=version,
            digest=known[version].digest,
            fingerprint="",
            address=site.addresses[known[version].id],
            weight=WHOLE // len(versions),
            since=0,
        )
        for version in versions
    )
    return Route(tenant=TENANT, model=model, backends=backends, api_key="the backends' own")


def answered_by(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-llm-digest"] == answer.json()["system_fingerprint"]
    return str(answer.headers["x-llm-digest"])


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_from_the_return_of_a_publication_on_requests_go_there_and_nowhere_else(site: Site) -> None:
    for version in ("v1", "v2", "v1"):
        assert site.gateway.publish(route(site, version)) == "counts"
        assert {answered_by(site.ask(MODEL)) for _ in range(20)} == {DIGESTS[MODEL, version]}


def test_a_dead_backend_gets_no_requests_and_its_version_is_not_passed_off_as_another(site: Site) -> None:
    both = route(site, "v1", "v2")
    dead = replace(both.backends[1], status="dead")
    site.gateway.publish(replace(both, backends=(both.production, dead)))
    assert {answered_by(site.ask(MODEL)) for _ in range(20)} == {DIGESTS[MODEL, "v1"]}
    assert refusal(site.ask(f"{MODEL}@v2")) == (503, "model_not_live")
    assert site.ask(f"{MODEL}@v3").status_code == 404


def test_where_every_backend_is_dead_nothing_is_live(site: Site) -> None:
    one = route(site, "v1")
    site.gateway.publish(one)
    site.gateway.publish(replace(one, backends=(replace(one.production, status="dead"),)))
    assert refusal(site.ask(MODEL)) == (503, "model_not_live")


def test_what_is_withdrawn_is_not_live_and_leaves_the_others_alone(site: Site) -> None:
    site.gateway.publish(route(site, "v1"))
    site.gateway.publish(route(site, "v1", model=OTHER))
    for _ in range(2):
        assert site.gateway.withdraw(TENANT, MODEL) == "counts"
    assert refusal(site.ask(MODEL)) == (503, "model_not_live")
    assert answered_by(site.ask(OTHER)) == DIGESTS[OTHER, "v1"]


def test_publishing_all_forgets_what_is_not_among_it(site: Site) -> None:
    site.gateway.publish(route(site, "v1"))
    site.gateway.publish(route(site, "v1", model=OTHER))
    assert site.gateway.publish_all([route(site, "v2")]) == "counts"
    assert answered_by(site.ask(MODEL)) == DIGESTS[MODEL, "v2"]
    assert refusal(site.ask(OTHER)) == (503, "model_not_live")


def test_where_no_gateway_runs_that_is_said_and_the_route_counts_for_the_next_one(idle: Site) -> None:
    assert idle.gateway.address_of(TENANT) is None
    assert idle.gateway.publish(route(idle, "v1")) == "no gateway runs"
    assert idle.gateway.withdraw(TENANT, OTHER) == "no gateway runs"
    assert idle.gateway.publish_all([route(idle, "v2")]) == "no gateway runs"
    idle.start()
    assert str(idle.gateway.address_of(TENANT)).endswith("/v1")
    assert answered_by(idle.ask(MODEL)) == DIGESTS[MODEL, "v2"]
