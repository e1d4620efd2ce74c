"""Whatever the catalog holds, Dagster can build the code location of it, as its code server does."""

import tempfile
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from hypothesis import given, settings

from llm_assets.catalog.loading import load_catalog
from llm_assets.graph import build_definitions
from llm_assets.installation.profiles import profile_of
from llm_assets.installation.settings import Settings
from tests.catalogs import MODES, Made, catalogs, expected_assets, model

# Dagster's own snapshot of a schedule reads it.
pytestmark = pytest.mark.filterwarnings("ignore:Property `ScheduleDefinition.environment_vars`")


def loaded(made: Made, folder: Path) -> RepositorySnap:
    """What the code server hands to the UI and the daemon: every job, sensor and schedule is built for it."""
    catalog = made.write(folder / "catalog")
    where = Settings(root=folder, catalog=catalog, home=folder / "home")
    repository = build_definitions(where, load_catalog(catalog)).get_repository_def()
    repository.validate_loadable()
    return RepositorySnap.from_def(repository)


def test_two_models_are_one_code_location(tmp_path: Path) -> None:
    made = Made(
        base_models=("tiny",),
        models={"support_bot": model("tiny"), "faq_bot": model("tiny")},
        tenants={"team-a": ("support_bot", "faq_bot")},
    )
    snap = loaded(made, tmp_path)
    jobs = {job.name for job in snap.job_datas or []}
    assert {"support_bot_chain", "faq_bot_chain"} <= jobs
    assert {tuple(node.asset_key.path) for node in snap.asset_nodes} == expected_assets(made)


@pytest.mark.parametrize("count", [0, 1, 2, 20])
@pytest.mark.parametrize("mode", MODES)
def test_a_catalog_of_any_size_is_one_code_location(tmp_path: Path, count: int, mode: str) -> None:
    made = Made(
        base_models=("tiny",),
        models={f"bot_{number}": model("tiny", mode=mode) for number in range(count)},
        tenants={"nobody": (), "team-a": tuple(f"bot_{number}" for number in range(count))},
    )
    snap = loaded(made, tmp_path)
    assert {tuple(node.asset_key.path) for node in snap.asset_nodes} == expected_assets(made)
    assert {sensor.name for sensor in snap.sensors} == {
        "abandoned_runs", "deployments", "experiments", "landing_zones", "recipes", "tenants",
    }  # fmt: skip
    assert {schedule.name for schedule in snap.schedules} == {"usage"}


def holds_for(made: Made) -> None:
    """It loads, shows what the catalog says, and every sensor and schedule ticks."""
    with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.ephemeral() as instance:
        snap = loaded(made, Path(folder))
        assert {tuple(node.asset_key.path) for node in snap.asset_nodes} == expected_assets(made)
        assert {f"{name}_chain" for name in made.models} <= {job.name for job in snap.job_datas or []}
        asked = tick_everything(Path(folder), instance)
    wanted = {
        name: sorted(tenant for tenant, models in made.tenants.items() if name in models)
        for name in made.models
    }
    assert asked == {name: tenants for name, tenants in wanted.items() if tenants}


def tick_everything(folder: Path, instance: dg.DagsterInstance) -> dict[str, list[str]]:
    """Evaluates all sensors and schedules as the daemon does; the partitions that they ask for, by model."""
    where = Settings(root=folder, catalog=folder / "catalog", home=folder / "home")
    definitions = build_definitions(where, load_catalog(where.catalog))
    repository = definitions.get_repository_def()
    profile = profile_of(where)
    resources = {"serving": profile.serving, "state": profile.state}
    asked: dict[str, list[str]] = {}
    for sensor in repository.sensor_defs:
        with dg.build_sensor_context(
            instance=instance, definitions=definitions, resources=resources
        ) as context:
            data = sensor.evaluate_tick(context)
        assert data.run_requests == []
        for request in data.dynamic_partitions_requests or []:
            asked[request.partitions_def_name] = sorted(request.partition_keys)
    for schedule in repository.schedule_defs:
        with dg.build_schedule_context(instance=instance) as context:
            assert schedule.evaluate_tick(context).skip_message
    return asked


@given(catalogs())
@settings(max_examples=20)
def test_any_catalog_is_one_code_location(made: Made) -> None:
    holds_for(made)


@pytest.mark.long
@given(catalogs(most_models=8, most_tenants=12))
@settings(max_examples=1_000)
def test_a_thousand_catalogs_are_code_locations(made: Made) -> None:
    holds_for(made)
