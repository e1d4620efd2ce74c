"""From an order to LLaMA-Factory's arguments."""

import json
from pathlib import Path
from typing import Any

import pytest

from llm_assets.workers import training_arguments
from llm_assets.workers.checkpoints import Checkpoint
from llm_assets.workers.failures import WorkerError


@pytest.fixture
def order(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "dataset_info.json").write_text(json.dumps({"train": {}, "held_out": {}}))
    return {
        "base_folder": "/base",
        "dataset_folder": str(tmp_path),
        "output_folder": "/run/output",
        "scratch_folder": "/run/checkpoints",
        "recipe": {"stage": "sft", "bf16": True, "output_dir": "/elsewhere", "learning_rate": 1e-4},
        "template": "smollm2",
        "device": "cpu",
    }


def test_the_platforms_paths_win_over_the_recipe_and_the_recipe_over_defaults(order: dict[str, Any]) -> None:
    order["recipe"] |= {"save_total_limit": 5, "template": "llama3", "val_size": 0.2}
    arguments = training_arguments.arguments(order, None)
    assert arguments["output_dir"] == "/run/checkpoints"
    assert arguments["template"] == "smollm2"
    assert arguments["val_size"] == 0
    assert arguments["save_total_limit"] == 5
    assert arguments["learning_rate"] == 1e-4


def test_gpu_precision_is_left_out_on_a_cpu_and_kept_on_a_gpu(order: dict[str, Any]) -> None:
    assert "bf16" not in training_arguments.arguments(order, None)
    assert training_arguments.left_out(order) == ["bf16"]
    order["device"] = "cuda"
    assert training_arguments.arguments(order, None)["bf16"] is True
    assert training_arguments.left_out(order) == []


def test_a_dataset_without_held_out_rows_is_not_evaluated(order: dict[str, Any], tmp_path: Path) -> None:
    order["recipe"]["eval_strategy"] = "steps"
    (tmp_path / "dataset_info.json").write_text(json.dumps({"train": {}}))
    arguments = training_arguments.arguments(order, None)
    assert arguments["eval_dataset"] is None
    assert arguments["eval_strategy"] == "no"
    assert arguments["do_eval"] is False


def test_a_recipes_own_saving_is_not_touched(order: dict[str, Any]) -> None:
    assert training_arguments.arguments(order, None)["save_steps"] == 0.1
    order["recipe"]["save_strategy"] = "epoch"
    assert "save_steps" not in training_arguments.arguments(order, None)


@pytest.mark.parametrize(("asked", "kept"), [(1, 2), (2, 2), (5, 5), (None, None), (0, 0)])
def test_two_checkpoints_are_kept_at_least(
    order: dict[str, Any], asked: int | None, kept: int | None
) -> None:
    assert training_arguments.arguments(order, None)["save_total_limit"] == 2
    order["recipe"]["save_total_limit"] = asked
    assert training_arguments.arguments(order, None)["save_total_limit"] == kept


def test_a_resumed_training_is_told_its_checkpoint(order: dict[str, Any]) -> None:
    checkpoint = Checkpoint(folder=Path("/run/checkpoints/checkpoint-7"), step=7, train_seconds=1.0)
    arguments = training_arguments.arguments(order, checkpoint)
    assert arguments["resume_from_checkpoint"] == str(checkpoint.folder)


def test_a_reward_model_saves_no_checkpoints_that_could_not_be_loaded(order: dict[str, Any]) -> None:
    order["recipe"] |= {"stage": "rm", "save_strategy": "epoch"}
    assert training_arguments.arguments(order, None)["save_strategy"] == "no"


def test_ppo_is_refused_with_the_stages_that_are_valid(order: dict[str, Any]) -> None:
    order["recipe"]["stage"] = "ppo"
    with pytest.raises(WorkerError, match="'ppo' is not supported; valid: sft, dpo, kto, pt, rm"):
        training_arguments.check(order)


def test_a_folder_that_is_no_prepared_dataset_is_named(order: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").unlink()
    with pytest.raises(WorkerError, match=r"dataset_info\.json is missing"):
        training_arguments.arguments(order, None)


@pytest.mark.parametrize(
    "recipe", [{"stage": "rm"}, {"pissa_init": True}, {"pissa_init": True, "pissa_convert": True}]
)
def test_what_cannot_go_on_from_a_checkpoint_writes_none(
    order: dict[str, Any], recipe: dict[str, Any]
) -> None:
    assert training_arguments.arguments(order, None)["save_strategy"] == "steps"
    order["recipe"] |= recipe
    arguments = training_arguments.arguments(order, None)
    assert arguments["save_strategy"] == "no"
    assert arguments.get("pissa_convert", False) == ("pissa_init" in recipe)
