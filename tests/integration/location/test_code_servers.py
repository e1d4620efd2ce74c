"""Catalogs of every kind behind real code servers, asked over GraphQL by way of a real webserver."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from llm_assets.partitions import add_tenants
from tests.catalogs import LONGEST, MODES, STAGES, Made, expected_assets, model
from tests.servers.code_locations import REPOSITORY, Webserver, webserver

LONG = "m" * LONGEST
KINDS = {
    "empty": Made(base_models=(), models={}, tenants={}),
    "unserved": Made(
        base_models=("tiny",),
        models={stage: model("tiny", stage=stage, mode="none") for stage in STAGES},
        tenants={"team-a": STAGES},
    ),
    "twenty": Made(
        base_models=("tiny", LONG),
        models={LONG: model(LONG)}
        | {f"bot_{number}": model("tiny", mode=MODES[number % 3]) for number in range(19)},
        tenants={"t" * LONGEST: (LONG, "bot_0"), "team-b": tuple(f"bot_{number}" for number in range(19))},
    ),
}
SELECTOR = {"repositoryName": REPOSITORY}
REPOSITORY_QUERY = """query($selector: RepositorySelector!) {
  repositoryOrError(repositorySelector: $selector) {
    ... on PythonError { message }
    ... on Repository {
      jobs { name }
      sensors { name }
      schedules { name }
      assetNodes { assetKey { path } isPartitioned groupName }
    }
  }
}"""
PARTITIONS_QUERY = """query($keys: [AssetKeyInput!]) {
  assetNodes(assetKeys: $keys) { assetKey { path } partitionKeys }
}"""
SENSOR_TICK = """mutation($selector: SensorSelector!) {
  sensorDryRun(selectorData: $selector, cursor: "") {
  ... on PythonError { message }
  ... on DryRunInstigationTick { evaluationResult {
    error { message } skipReason runRequests { runKey }
    dynamicPartitionsRequests { partitionsDefName partitionKeys }
  } }
} }"""
SCHEDULE_TICK = """mutation($selector: ScheduleSelector!) {
  scheduleDryRun(selectorData: $selector, timestamp: 1796000000) {
    ... on PythonError { message }
    ... on DryRunInstigationTick { evaluationResult { error { message } skipReason } }
  }
}"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dagster")


@pytest.fixture(scope="module")
def server(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webserver]:
    """One location per kind of catalog, and one whose catalog has a mistake."""
    folder = tmp_path_factory.mktemp("catalogs")
    catalogs = {name: made.write(folder / name) for name, made in KINDS.items()}
    catalogs["mistaken"] = KINDS["unserved"].write(folder / "mistaken")
    (catalogs["mistaken"] / "models" / "sft.yaml").write_text("base_model: tiny\n")
    with webserver(home, catalogs) as running:
        yield running


def test_every_good_catalog_is_loaded_and_the_mistaken_one_says_why(server: Webserver) -> None:
    states = {state.name: state for state in server.locations.states() or ()}
    assert {name: state.status for name, state in states.items()} == {
        **dict.fromkeys(KINDS, "loaded"),
        "mistaken": "failed",
    }
    [fault] = server.locations.faults()
    assert fault == states["mistaken"].fault
    assert "The code location mistaken did not load" in fault
    assert "models/sft.yaml" in fault, "the catalog's own words, with the file"
    assert "`llm-assets check`" in fault


@pytest.mark.parametrize("kind", KINDS)
def test_the_ui_shows_assets_jobs_sensors_and_schedules(server: Webserver, kind: str) -> None:
    made = KINDS[kind]
    selector = SELECTOR | {"repositoryLocationName": kind}
    found = server.ask(REPOSITORY_QUERY, selector=selector)["repositoryOrError"]
    assert {tuple(node["assetKey"]["path"]) for node in found["assetNodes"]} == expected_assets(made)
    shared = {node["groupName"] for node in found["assetNodes"] if not node["isPartitioned"]}
    assert shared == ({"base_models"} if made.base_models else set())
    jobs = {job["name"] for job in found["jobs"] if not job["name"].startswith("__")}
    assert jobs == {f"{name}_chain" for name in made.models}
    assert {sensor["name"] for sensor in found["sensors"]} == {
        "abandoned_runs", "deployments", "experiments", "landing_zones", "recipes", "tenants",
    }  # fmt: skip
    assert {schedule["name"] for schedule in found["schedules"]} == {"usage"}


def evaluated(tick: dict[str, Any]) -> dict[str, Any]:
    assert "message" not in tick, tick["message"]
    assert tick["evaluationResult"]["error"] is None
    return dict(tick["evaluationResult"])


@pytest.mark.parametrize("kind", KINDS)
def test_every_sensor_and_schedule_ticks_in_the_code_server(server: Webserver, kind: str) -> None:
    selector = SELECTOR | {"repositoryLocationName": kind}
    found = server.ask(REPOSITORY_QUERY, selector=selector)["repositoryOrError"]
    for sensor in found["sensors"]:
        named = selector | {"sensorName": sensor["name"]}
        tick = evaluated(server.ask(SENSOR_TICK, selector=named)["sensorDryRun"])
        assert tick["skipReason"] or tick["dynamicPartitionsRequests"], sensor
    for schedule in found["schedules"]:
        named = selector | {"scheduleName": schedule["name"]}
        tick = evaluated(server.ask(SCHEDULE_TICK, selector=named)["scheduleDryRun"])
        assert "No request was ever recorded" in tick["skipReason"]


def test_tenants_are_the_partitions_of_their_models_alone(server: Webserver, home: Path) -> None:
    """What the sensor asks for is added as the daemon would add it; the UI then shows just that."""
    made = KINDS["twenty"]
    selector = SELECTOR | {"repositoryLocationName": "twenty", "sensorName": "tenants"}
    tick = evaluated(server.ask(SENSOR_TICK, selector=selector)["sensorDryRun"])
    with dg.DagsterInstance.from_config(str(home)) as instance:
        for request in tick["dynamicPartitionsRequests"]:
            add_tenants(instance, request["partitionsDefName"], request["partitionKeys"])
    wanted = {
        name: {tenant for tenant, models in made.tenants.items() if name in models} for name in made.models
    }
    keys = [{"path": [name, "dataset"]} for name in made.models]
    nodes = server.ask(PARTITIONS_QUERY, keys=keys)["assetNodes"]
    assert {node["assetKey"]["path"][0]: set(node["partitionKeys"]) for node in nodes} == wanted
