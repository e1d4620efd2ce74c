"""Whatever the catalog holds, Dagster can build the code location of it, as its code server does."""

import tempfile
from pathlib import Path

import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from hypothesis import given, settings

from llm_assets.catalog.loading import load_catalog
from llm_assets.graph import build_definitions
from llm_assets.settings import Settings
from tests.catalogs import MODES, Made, catalogs, model

# Dagster's own snapshot of a schedule reads it.
pytestmark = pytest.mark.filterwarnings("ignore:Property `ScheduleDefinition.environment_vars`")


def loaded(made: Made, folder: Path) -> RepositorySnap:
    """What the code server hands to the UI and the daemon: every job, sensor and schedule is built for it."""
    catalog = made.write(folder / "catalog")
    where = Settings(root=folder, catalog=catalog, home=folder / "home")
    repository = build_definitions(where, load_catalog(catalog)).get_repository_def()
    repository.validate_loadable()
    return RepositorySnap.from_def(repository)


def names(made: Made, mode: str) -> set[str]:
    return {name for name, each in made.models.items() if each["serving"]["mode"] == mode}


def expected_assets(made: Made) -> set[tuple[str, ...]]:
    keys = {("gateway", "usage"), *(("base_models", name) for name in made.base_models)}
    for name, each in made.models.items():
        kinds = ["dataset", "lora_adapter"]
        if each["recipe"]["stage"] != "rm":
            kinds += ["merged_model", "model_card"]
        if each["serving"]["mode"] != "none":
            kinds += ["vllm_deployment"]
        keys |= {(name, kind) for kind in kinds}
    return keys


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
        "abandoned_runs", "deployments", "experiments", "landing_zones", "tenants",
    }  # fmt: skip
    assert {schedule.name for schedule in snap.schedules} == {"usage"}


@given(catalogs())
@settings(max_examples=20)
def test_any_catalog_is_one_code_location(made: Made) -> None:
    with tempfile.TemporaryDirectory() as folder:
        snap = loaded(made, Path(folder))
    assert {tuple(node.asset_key.path) for node in snap.asset_nodes} == expected_assets(made)
    assert {f"{name}_chain" for name in made.models} <= {job.name for job in snap.job_datas or []}
