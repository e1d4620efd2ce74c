"""Each argument that the platform serves trains for real, set to something else than its default.

Not covered: arguments for GPUs, and what the engine's lock has no package for.
"""

from pathlib import Path

import pytest

from llm_assets.catalog.recipes import check_arguments
from tests.e2e.served_arguments import recipe_for, served_on_a_cpu
from tests.e2e.work_orders import INFO, Engine, rows, train_order, write_dataset

pytestmark = [pytest.mark.engine, pytest.mark.long]


def test_every_served_argument_trains(train_python: Path, tiny_model: Path, tmp_path: Path) -> None:
    datasets = {stage: write_dataset(tmp_path / "data" / stage, stage, rows(stage)) for stage in INFO}
    recipes = {name: recipe_for(name) for name in served_on_a_cpu()}
    refused = {name: check_arguments(recipe).problems for name, recipe in recipes.items()}
    assert {name: problems for name, problems in refused.items() if problems} == {}
    orders = [
        train_order(
            tiny_model,
            datasets[recipe.get("stage", "sft")],
            tmp_path / name,
            **{"num_train_epochs": 1, "logging_steps": 1, **recipe},
        )
        for name, recipe in recipes.items()
    ]
    engine = Engine(train_python, tmp_path)
    results = engine.work_in_one_process(*(("train", order) for order in orders))
    failures = {name: result.get("failure") for name, result in zip(recipes, results, strict=True)}
    assert {name: failure for name, failure in failures.items() if failure} == {}
    assert all(result["steps"] > 0 and result["final_loss"] is not None for result in results)
