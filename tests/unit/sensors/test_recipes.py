"""A changed recipe of a model on a real Dagster instance: who is told, who is run, and how many at once."""

from pathlib import Path

import dagster as dg
import pytest

from llm_assets.catalog.loading import load_catalog
from llm_assets.installation.settings import Settings
from llm_assets.keys import LORA_ADAPTER, model_key
from llm_assets.outdated_recipes import RECIPE_TAG, outdated_recipes, recipe_tag
from llm_assets.sensors.recipes import RUNS_PER_TICK
from tests.unit.sensors.test_sensors import Ticks, instance, settings

__all__ = ["instance", "settings"]

MODEL = "support_bot"


def model_file(settings: Settings) -> Path:
    return settings.catalog / "models" / f"{MODEL}.yaml"


def change_recipe(settings: Settings, learning_rate: str) -> None:
    lines = model_file(settings).read_text().splitlines()
    changed = (f"  learning_rate: {learning_rate}" if "learning_rate" in line else line for line in lines)
    model_file(settings).write_text("\n".join(changed) + "\n")


def train(instance: dg.DagsterInstance, settings: Settings, *tenants: str, of: str | None = None) -> None:
    """As the adapter's asset does; `of`: whose adapter the event names."""
    catalog = load_catalog(settings.catalog)
    for tenant in tenants:
        instance.report_runless_asset_event(
            dg.AssetMaterialization(
                asset_key=model_key(MODEL, LORA_ADAPTER),
                partition=tenant,
                metadata={
                    "dagster/uri": f"artifact://adapters/{of or tenant}/{MODEL}/20260101T000000Z-00000000"
                },
                tags={RECIPE_TAG: recipe_tag(catalog.recipe_for(tenant, MODEL))},
            )
        )


def make_automatic(settings: Settings) -> None:
    model_file(settings).write_text(model_file(settings).read_text() + "retraining: automatic\n")


def skipped(ticks: Ticks) -> str:
    result = ticks.tick()
    assert isinstance(result, dg.SkipReason), result
    return str(result.skip_message)


@pytest.fixture
def trained(settings: Settings, instance: dg.DagsterInstance) -> Ticks:
    """Both tenants were trained by the recipe that the model's file has, and the sensor has seen that."""
    train(instance, settings, "team-a", "team-b")
    ticks = Ticks(settings, instance, "recipes")
    for _ in range(3):
        assert skipped(ticks) == "No changed recipe among 1 models."
    return ticks


def test_a_changed_recipe_starts_nothing_by_itself_and_is_said_until_all_are_trained(
    trained: Ticks, settings: Settings, instance: dg.DagsterInstance
) -> None:
    change_recipe(settings, "1.0e-3")
    assert skipped(trained) == "No changed recipe among 1 models.", "it may still be being written"
    for _ in range(2):
        assert skipped(trained) == (
            "The recipe of support_bot has changed since 2 of its 2 trained tenants were trained "
            "(team-a, team-b): llm-assets run support_bot --all-tenants"
        )
    train(instance, settings, "team-a")
    assert "1 of its 2 trained tenants were trained (team-b)" in skipped(trained)
    train(instance, settings, "team-b")
    assert skipped(trained) == "No changed recipe among 1 models."


def test_automatic_retraining_asks_for_one_run_of_each_tenant_once(
    trained: Ticks, settings: Settings, instance: dg.DagsterInstance
) -> None:
    make_automatic(settings)
    change_recipe(settings, "1.0e-3")
    assert trained.requested() == []
    assert trained.requested() == ["team-a", "team-b"]
    assert trained.requested() == []
    train(instance, settings, "team-a", "team-b")
    assert trained.requested() == []


def test_going_back_to_an_earlier_recipe_counts_as_another_change(
    trained: Ticks, settings: Settings, instance: dg.DagsterInstance
) -> None:
    make_automatic(settings)
    keys = []
    for rate in ("1.0e-3", "1.0e-2", "1.0e-3"):
        change_recipe(settings, rate)
        trained.tick()
        result = trained.tick()
        assert isinstance(result, dg.SensorResult)
        keys += [request.run_key for request in result.run_requests or []]
        train(instance, settings, "team-a", "team-b")
    assert len(keys) == len(set(keys)) == 6


def test_a_tenant_with_an_experiment_has_a_recipe_of_its_own(
    trained: Ticks, settings: Settings, instance: dg.DagsterInstance
) -> None:
    folder = settings.experiments / "team-a" / MODEL
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("stage: sft\nfinetuning_type: lora\n")
    train(instance, settings, "team-a")
    change_recipe(settings, "1.0e-3")
    [outdated] = outdated_recipes(instance, load_catalog(settings.catalog))
    assert (list(outdated.tenants), outdated.trained) == (["team-b"], 1)


def test_what_is_no_change_of_the_recipe_asks_nobody(
    trained: Ticks, settings: Settings, instance: dg.DagsterInstance
) -> None:
    """Not a new revision of the base model, not another purpose, threshold or way to serve."""
    text = model_file(settings).read_text()
    model_file(settings).write_text(
        text.replace("max_num_seqs: 4", "max_num_seqs: 8").replace("two questions", "three questions")
    )
    base = settings.catalog / "base_models" / "tiny.yaml"
    base.write_text(base.read_text().replace("description:", "description: A newer one."))
    for _ in range(3):
        assert skipped(trained) == "No changed recipe among 1 models."


def test_an_event_that_names_another_tenants_adapter_says_nothing_of_the_recipe(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    train(instance, settings, "team-a", "team-b", of="team-a")
    change_recipe(settings, "3.0e-5")
    [outdated] = outdated_recipes(instance, load_catalog(settings.catalog))
    assert (list(outdated.tenants), outdated.trained) == (["team-a"], 1)


def test_an_adapter_from_before_recipes_were_noted_is_not_called_outdated(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    instance.report_runless_asset_event(
        dg.AssetMaterialization(asset_key=model_key(MODEL, LORA_ADAPTER), partition="team-a")
    )
    assert list(outdated_recipes(instance, load_catalog(settings.catalog))) == []


def test_many_tenants_are_asked_for_a_hundred_at_a_tick_each_once(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    names = [f"tenant-{number:03}" for number in range(2 * RUNS_PER_TICK + 50)]
    for name in names:
        (settings.catalog / "tenants" / f"{name}.yaml").write_text(
            f"owner: o@example.com\nmodels: [{MODEL}]\n"
        )
    make_automatic(settings)
    train(instance, settings, *names)
    change_recipe(settings, "1.0e-3")
    ticks = Ticks(settings, instance, "recipes")
    asked = [ticks.requested() for _ in range(6)]
    assert [len(each) for each in asked] == [0, RUNS_PER_TICK, RUNS_PER_TICK, 50, 0, 0]
    assert sorted(str(name) for each in asked for name in each) == names
