"""What holds of the serving seam, whoever fills it (`resources/seams/serving.py`).

Another implementation is one more parameter of `site`.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from resources.artifact_store.store import ArtifactStore
from resources.seams.serving import Route, Serving, ServingError
from tests.contract.serving_sites import Site, local_site
from tests.integration.serving.conftest import MODEL, TENANT, MakeServing, make_serving, quiet, store, untold

__all__ = ["make_serving", "store"]


@pytest.fixture(params=["local"])
def site(tmp_path: Path, store: ArtifactStore, make_serving: MakeServing) -> Iterator[Site]:
    with local_site(tmp_path, store, make_serving) as site:
        yield site


def deploy(site: Site, *servings: Serving) -> Route:
    return site.serving.deploy(servings, publish=untold, log=quiet)


def test_what_was_never_deployed_is_absent_and_has_no_backend(site: Site) -> None:
    assert site.serving.state(TENANT, MODEL).status == "absent"
    assert site.serving.route(TENANT, MODEL).backends == ()
    assert list(site.serving.routes()) == []
    assert site.serving.states() == ()


def test_a_deploy_gives_a_route_whose_backends_say_what_they_serve(site: Site) -> None:
    one = site.version("v1")
    route = deploy(site, one)
    [backend] = route.backends
    assert (backend.version, backend.digest, backend.weight) == (one.version, one.digest, one.weight)
    assert backend.fingerprint == one.fingerprint
    assert site.digest_of(backend) == one.digest
    assert site.serving.route(TENANT, MODEL) == route
    assert list(site.serving.routes()) == [route]
    state = site.serving.state(TENANT, MODEL)
    assert (state.status, state.backends) == ("live", route.backends)


def test_what_is_live_already_stays_as_it_is_and_is_published_again(site: Site) -> None:
    first = deploy(site, site.version("v1"))
    published: list[Route] = []
    again = site.serving.deploy((site.version("v1"),), publish=published.append, log=quiet)
    assert again == first
    assert published == [first]


def test_an_old_backend_answers_until_the_new_route_was_published_and_is_then_gone(site: Site) -> None:
    [old] = deploy(site, site.version("v1")).backends
    seen: list[tuple[str, str]] = []

    def publish(route: Route) -> None:
        seen.append((site.digest_of(old), site.digest_of(route.production)))

    site.serving.deploy((site.version("v2"),), publish=publish, log=quiet)
    assert seen == [("sha256:v1", "sha256:v2")]
    with pytest.raises((ServingError, AssertionError)):
        site.digest_of(old)


def test_versions_share_the_requests_and_production_comes_first(site: Site) -> None:
    one, two = replace(site.version("v1"), weight=80), replace(site.version("v2"), weight=20)
    published: list[Route] = []
    route = site.serving.deploy((one, two), publish=published.append, log=quiet)
    assert published[-1] == route
    assert all(each.production.version == "v1" for each in published)
    assert {sum(backend.weight for backend in each.backends) for each in published} == {100}
    assert [(each.version, each.weight, site.digest_of(each)) for each in route.backends] == [
        ("v1", 80, one.digest),
        ("v2", 20, two.digest),
    ]


def test_one_that_answers_otherwise_is_in_no_route_and_what_was_live_goes_on(site: Site) -> None:
    before = deploy(site, site.version("v1"))
    published: list[Route] = []
    with pytest.raises(ServingError, match=r"v2(.|\n)*Version v1 goes on serving"):
        site.serving.deploy((site.wrong("v2"),), publish=published.append, log=quiet)
    assert published == []
    assert site.serving.route(TENANT, MODEL) == before
    assert site.digest_of(before.production) == "sha256:v1"


def test_where_the_gateway_does_not_take_the_route_nothing_ends(site: Site) -> None:
    [old] = deploy(site, site.version("v1")).backends

    def refuse(route: Route) -> None:
        raise RuntimeError("not taken")

    with pytest.raises(RuntimeError, match="not taken"):
        site.serving.deploy((site.version("v2"),), publish=refuse, log=quiet)
    assert site.digest_of(old) == "sha256:v1"
    route = deploy(site, site.version("v2"))
    assert site.digest_of(route.production) == "sha256:v2"


def test_what_is_stopped_has_no_route_and_can_be_deployed_again(site: Site) -> None:
    deploy(site, site.version("v1"))
    for _ in range(2):
        site.serving.stop(TENANT, MODEL)
    state = site.serving.state(TENANT, MODEL)
    assert (state.status, state.version) == ("stopped", "v1")
    assert site.serving.route(TENANT, MODEL).backends == ()
    assert deploy(site, site.version("v1")).production.version == "v1"


@pytest.mark.parametrize("weights", [(90, 20), (100, 0)])
def test_weights_that_make_no_whole_are_refused(site: Site, weights: tuple[int, int]) -> None:
    servings = (replace(site.version(f"v{at}"), weight=weight) for at, weight in enumerate(weights))
    with pytest.raises(ServingError, match="cannot be live together"):
        deploy(site, *servings)
