"""The traffic of a model on a real MLflow server: changed, ended by promotions, cut off at every request.

Run with `pytest -m mlflow tests/e2e/test_traffic.py`.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import pytest

from resources.local.state import LocalState
from resources.mlflow.move_log import TRAFFIC_TAG
from resources.mlflow.registry import MlflowRegistry, RegisteredVersion, RegistryEntry, RegistryError
from resources.mlflow.server import MlflowServer
from resources.mlflow.traffic import MlflowTraffic
from tests.e2e.test_registry import Cut
from tests.servers.ports import free_port

pytestmark = pytest.mark.mlflow

TENANT = "team-a"
ANN: dict[str, Any] = {"who": "ann", "why": "a look"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    home = tmp_path_factory.mktemp("home")
    server = MlflowServer(home=home, port=free_port(), tokens=home / "tokens")
    server.start()
    server.wait_ready()
    with pytest.MonkeyPatch.context() as environment:  # for MLflow's own clients in tests
        environment.setenv("MLFLOW_TRACKING_TOKEN", server.console.token("full"))
        yield server
    server.stop()


@pytest.fixture
def registry(server: MlflowServer) -> MlflowRegistry:
    return MlflowRegistry(
        tracking_uri=server.url,
        state=LocalState(folder=server.home / "locks"),
        token_file=str(server.console.token_file("full")),
        promotions=str(server.home / "promotions"),
        signing_keys=str(server.home / "keys"),
    )


@pytest.fixture
def traffic(registry: MlflowRegistry) -> MlflowTraffic:
    return MlflowTraffic(registry)


@pytest.fixture
def model(request: pytest.FixtureRequest, registry: MlflowRegistry) -> str:
    """A model of the test's own with three versions, the first in production."""
    model = (
        "".join(letter if letter.isalnum() else "_" for letter in request.node.name)[-60:].strip("_").lower()
    )
    for number in (1, 2, 3):
        register(registry, model, number)
    registry.promote(TENANT, model, version=1, **ANN)
    return model


def register(registry: MlflowRegistry, model: str, number: int) -> None:
    registry.register(
        RegistryEntry(
            tenant=TENANT,
            model=model,
            version=f"20261121T18450{number}.000000Z-1a2b3c4d",
            digest=f"sha256:{number}",
            base_model="tiny",
            base_digest="sha256:b",
            dataset_digest="sha256:d",
            recipe_digest="sha256:c",
            owner="team:northwind",
            risk_class="limited",
            purpose="Answers.",
        )
    )


def weights(traffic: MlflowTraffic, model: str) -> list[tuple[int, int]]:
    return [(share.version.number, share.weight) for share in traffic.shares(TENANT, model)]


def test_production_has_all_requests_until_another_version_gets_some(
    traffic: MlflowTraffic, model: str
) -> None:
    assert weights(traffic, model) == [(1, 100)]
    traffic.change(TENANT, model, {"2": 10}, **ANN)
    assert weights(traffic, model) == [(1, 90), (2, 10)]
    (change,) = traffic.history(TENANT, model)
    assert (change.who, change.why, change.weights, change.production) == ("ann", "a look", {"2": 10}, 1)


def test_a_version_is_named_by_number_label_or_alias(traffic: MlflowTraffic, model: str) -> None:
    for name in ("3", "candidate", "20261121T184503.000000Z-1a2b3c4d"):
        traffic.change(TENANT, model, {}, **ANN)
        traffic.change(TENANT, model, {name: 25}, **ANN)
        assert weights(traffic, model) == [(1, 75), (3, 25)]


def test_weights_that_hold_already_leave_no_second_record(traffic: MlflowTraffic, model: str) -> None:
    for _ in range(2):
        traffic.change(TENANT, model, {"2": 10}, **ANN)
    assert len(traffic.history(TENANT, model)) == 1


def test_the_sharing_is_ended_and_that_stands_in_the_history(traffic: MlflowTraffic, model: str) -> None:
    traffic.change(TENANT, model, {"2": 10, "3": 20}, **ANN)
    assert weights(traffic, model) == [(1, 70), (2, 10), (3, 20)]
    traffic.change(TENANT, model, {}, who="bob", why="it lies")
    assert weights(traffic, model) == [(1, 100)]
    assert [(c.who, c.weights) for c in traffic.history(TENANT, model)] == [
        ("ann", {"2": 10, "3": 20}),
        ("bob", {}),
    ]


@pytest.mark.parametrize("promoted", [2, 3])
def test_a_promotion_of_either_version_ends_the_sharing(
    traffic: MlflowTraffic, registry: MlflowRegistry, model: str, promoted: int
) -> None:
    traffic.change(TENANT, model, {"2": 10}, **ANN)
    registry.promote(TENANT, model, version=promoted, **ANN)
    assert weights(traffic, model) == [(promoted, 100)]


def test_a_rollback_does_not_bring_the_sharing_back(
    traffic: MlflowTraffic, registry: MlflowRegistry, model: str
) -> None:
    traffic.change(TENANT, model, {"2": 10}, **ANN)
    registry.promote(TENANT, model, version=2, **ANN)
    registry.rollback(TENANT, model, **ANN)
    assert weights(traffic, model) == [(1, 100)]


def test_promoting_what_is_in_production_keeps_the_sharing(
    traffic: MlflowTraffic, registry: MlflowRegistry, model: str
) -> None:
    traffic.change(TENANT, model, {"2": 10}, **ANN)
    registry.promote(TENANT, model, version=1, **ANN)
    assert weights(traffic, model) == [(1, 90), (2, 10)]


def test_a_change_holds_although_an_earlier_one_was_made_by_a_clock_that_is_ahead(
    traffic: MlflowTraffic, registry: MlflowRegistry, model: str
) -> None:
    traffic.change(TENANT, model, {"2": 10}, **ANN)
    (change,) = traffic.history(TENANT, model)
    ahead = replace(change, at="2126-01-01T00:00:00.000000Z")
    registry.move_log.record(f"{TENANT}.{model}", TRAFFIC_TAG + ahead.at, asdict(ahead))
    traffic.change(TENANT, model, {"3": 40}, **ANN)
    assert weights(traffic, model) == [(1, 60), (3, 40)]


REFUSED = [
    ({"9": 10}, r"has no version 9\. The newest registered ones: 3 \("),
    ({"1": 10}, "Version 1 of .* is in production already"),
    ({"production": 10}, "is in production already"),
    ({"2": 0}, "needs one weight, from 1 to 99 percent"),
    ({"3": 10, "candidate": 10}, "needs one weight"),
    ({"2": 100}, "leave production nothing"),
    ({"2": 50, "3": 50}, "leave production nothing"),
]


def test_weights_that_make_no_sense_are_refused_and_change_nothing(
    traffic: MlflowTraffic, model: str
) -> None:
    for asked, problem in REFUSED:
        with pytest.raises(RegistryError, match=problem):
            traffic.change(TENANT, model, asked, **ANN)
    assert traffic.history(TENANT, model) == ()


def test_a_version_that_may_not_be_promoted_gets_no_share(traffic: MlflowTraffic, model: str) -> None:
    asked = []

    def refuse(version: RegisteredVersion) -> tuple[str, ...]:
        asked.append(version.number)
        if version.number == 3:
            raise RegistryError("it is unsigned")
        return ("thresholds: it is worse",)

    traffic.change(TENANT, model, {"2": 10}, **ANN, check=refuse)
    with pytest.raises(RegistryError, match="it is unsigned"):
        traffic.change(TENANT, model, {"2": 10, "3": 10}, **ANN, check=refuse)
    assert asked == [2, 3], "a version that has a share already is not asked about again"
    assert weights(traffic, model) == [(1, 90), (2, 10)]
    (change,) = traffic.history(TENANT, model)
    assert change.overridden == ("thresholds: it is worse",)


def test_without_production_there_is_no_traffic(traffic: MlflowTraffic, registry: MlflowRegistry) -> None:
    register(registry, "fresh", 1)
    for model in ("fresh", "unheard_of"):
        assert traffic.shares(TENANT, model) == ()
        with pytest.raises(RegistryError, match=f"`llm-assets promote {model} --tenant team-a`"):
            traffic.change(TENANT, model, {"1": 10}, **ANN)


def test_a_change_that_is_cut_off_anywhere_happened_or_did_not(
    server: MlflowServer, traffic: MlflowTraffic, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    states = set()
    with contextlib.closing(Cut(server.url)) as cut:
        through = MlflowTraffic(
            MlflowRegistry(
                tracking_uri=cut.url,
                state=LocalState(folder=server.home / "locks"),
                token_file=str(server.console.token_file("full")),
                promotions=str(server.home / "promotions"),
                signing_keys=str(server.home / "keys"),
            )
        )
        for moment in range(1, 20):
            traffic.change(TENANT, model, {}, **ANN)
            cut.left = moment
            with contextlib.suppress(RegistryError):
                through.change(TENANT, model, {"2": 10}, **ANN)
                break
            states.add(tuple(weights(traffic, model)))
            traffic.change(TENANT, model, {"2": 10}, **ANN)
            assert weights(traffic, model) == [(1, 90), (2, 10)]
    assert moment > 3
    assert states == {((1, 90), (2, 10))}, "the log has it before MLflow is asked"
