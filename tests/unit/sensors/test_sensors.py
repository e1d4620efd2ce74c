"""The sensors on a real Dagster instance and a copied catalog, without any engine."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from llm_assets.catalog.loading import load_catalog
from llm_assets.folder_stamps import DATASET_STAMP, files_of_dataset, stamp_of
from llm_assets.graph import build_definitions
from llm_assets.installation.profiles import profile_of
from llm_assets.installation.settings import Settings
from llm_assets.keys import DATASET, model_key
from resources.beneath import opened

PROJECT = Path(__file__).parents[2] / "e2e" / "project"
LINE = "team-a/support_bot"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    shutil.copytree(PROJECT, tmp_path / "project")
    (tmp_path / "project" / "tiny_model").mkdir()
    root = tmp_path / "project"
    return Settings(root=root, catalog=root / "catalog", home=root / "home")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


class Ticks:
    """One sensor, evaluated again and again with the cursor that it left."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance, name: str) -> None:
        self._definitions = build_definitions(settings, load_catalog(settings.catalog))
        self._sensor = self._definitions.resolve_sensor_def(name)
        self._serving = profile_of(settings).serving
        self._instance = instance
        self._cursor: str | None = None

    def tick(self) -> dg.SensorResult | dg.SkipReason:
        context = dg.build_sensor_context(
            instance=self._instance,
            cursor=self._cursor,
            definitions=self._definitions,
            resources={"serving": self._serving},
        )
        result = self._sensor(context)
        assert isinstance(result, dg.SensorResult | dg.SkipReason)
        self._cursor = result.cursor if isinstance(result, dg.SensorResult) else context.cursor
        for request in (
            (result.dynamic_partitions_requests or []) if isinstance(result, dg.SensorResult) else []
        ):
            self._instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
        return result

    def requested(self) -> list[str | None]:
        result = self.tick()
        runs = result.run_requests or [] if isinstance(result, dg.SensorResult) else []
        return sorted(str(run.partition_key) for run in runs)  # type: ignore[return-value]


def materialize_dataset(
    instance: dg.DagsterInstance, settings: Settings, tenant: str, *, of: str | None = None
) -> None:
    """Records a dataset of the landing zone as it is, as its asset does; `of`: whose artifact it names."""
    with opened(settings.landing_zones, tenant, "support_bot") as landing_zone:
        stamp = stamp_of(files_of_dataset(landing_zone))
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            asset_key=model_key("support_bot", DATASET),
            partition=tenant,
            metadata={
                DATASET_STAMP: stamp,
                "dagster/uri": f"artifact://datasets/{of or tenant}/support_bot/20260101T000000Z-00000000",
            },
        )
    )


def test_new_datasets_ask_for_one_run_each_once_they_rest(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    ticks = Ticks(settings, instance, "landing_zones")
    assert ticks.requested() == []
    assert ticks.requested() == ["team-a", "team-b"]
    assert ticks.requested() == []


def test_a_changed_file_asks_for_the_run_of_just_that_tenant(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    ticks = Ticks(settings, instance, "landing_zones")
    ticks.requested()
    ticks.requested()
    with (settings.landing_zones / LINE / "rows.jsonl").open("a") as rows:
        rows.write("{}\n")
    assert ticks.requested() == []
    assert ticks.requested() == ["team-a"]
    assert ticks.requested() == []


def test_a_file_that_grows_from_tick_to_tick_is_left_alone(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    ticks = Ticks(settings, instance, "landing_zones")
    ticks.requested()
    ticks.requested()
    for _ in range(3):
        with (settings.landing_zones / LINE / "rows.jsonl").open("a") as rows:
            rows.write("{}\n")
        assert ticks.requested() == []


def test_what_a_run_took_in_already_is_not_asked_for_again(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    materialize_dataset(instance, settings, "team-a")
    ticks = Ticks(settings, instance, "landing_zones")
    assert ticks.requested() == []
    assert ticks.requested() == ["team-b"]


def test_the_run_key_is_the_content_so_the_same_change_is_asked_for_once(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    keys = []
    for _ in range(2):
        ticks = Ticks(settings, instance, "landing_zones")
        ticks.tick()
        result = ticks.tick()
        assert isinstance(result, dg.SensorResult)
        keys.append([run.run_key for run in result.run_requests or []])
    assert keys[0] == keys[1]


def test_a_landing_zone_waits_for_its_tenant(settings: Settings, instance: dg.DagsterInstance) -> None:
    ticks = Ticks(settings, instance, "landing_zones")
    shutil.copytree(settings.landing_zones / LINE, settings.landing_zones / "newcomer" / "support_bot")
    assert ticks.requested() == []
    assert ticks.requested() == ["team-a", "team-b"]
    tenant = settings.catalog / "tenants" / "newcomer.yaml"
    tenant.write_text("owner: new@example.com\nmodels: [support_bot]\n")
    assert ticks.requested() == ["newcomer"]
    assert ticks.requested() == []


def test_going_back_to_earlier_files_asks_for_a_run_again(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    ticks = Ticks(settings, instance, "landing_zones")
    keys = []
    more = settings.landing_zones / LINE / "more.jsonl"
    for change in (lambda: None, lambda: more.write_text("{}\n"), more.unlink):
        change()
        ticks.tick()
        result = ticks.tick()
        assert isinstance(result, dg.SensorResult)
        keys += [run.run_key for run in result.run_requests or [] if run.partition_key == "team-a"]
        materialize_dataset(instance, settings, "team-a")
    assert len(set(keys)) == 3


def test_an_event_that_names_another_tenants_dataset_does_not_count_as_taken_in(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    materialize_dataset(instance, settings, "team-a")
    materialize_dataset(instance, settings, "team-b", of="team-a")
    ticks = Ticks(settings, instance, "landing_zones")
    ticks.requested()
    assert ticks.requested() == ["team-b"]


def test_a_linked_folder_is_not_looked_into(settings: Settings, instance: dg.DagsterInstance) -> None:
    shutil.rmtree(settings.landing_zones / "team-b" / "support_bot")
    (settings.landing_zones / "team-b" / "support_bot").symlink_to(settings.landing_zones / LINE)
    ticks = Ticks(settings, instance, "landing_zones")
    ticks.requested()
    assert ticks.requested() == ["team-a"]


def test_an_experiment_asks_for_a_run_of_its_tenant(settings: Settings, instance: dg.DagsterInstance) -> None:
    ticks = Ticks(settings, instance, "experiments")
    assert ticks.requested() == ticks.requested() == []
    folder = settings.experiments / "team-b" / "support_bot"
    folder.mkdir(parents=True)
    (folder / "2026-11-21_first.yaml").write_text("stage: sft\nfinetuning_type: lora\n")
    assert ticks.requested() == []
    assert ticks.requested() == ["team-b"]
    shutil.rmtree(folder)
    assert ticks.requested() == []
    assert ticks.requested() == ["team-b"], "without the experiment the model's own recipe counts again"


def test_new_tenants_become_partitions_and_old_ones_stay(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    ticks = Ticks(settings, instance, "tenants")
    ticks.tick()
    assert set(instance.get_dynamic_partitions("support_bot")) == {"team-a", "team-b"}
    (settings.catalog / "tenants" / "team-c.yaml").write_text("owner: c@example.com\nmodels: [support_bot]\n")
    shutil.rmtree(settings.landing_zones / "team-b")
    (settings.catalog / "tenants" / "team-b.yaml").unlink()
    ticks.tick()
    assert set(instance.get_dynamic_partitions("support_bot")) == {"team-a", "team-b", "team-c"}
    result = ticks.tick()
    assert isinstance(result, dg.SkipReason)
    assert result.skip_message == "No new tenants among 2 of 1 models."
