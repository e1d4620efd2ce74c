"""From an order to LLaMA-Factory's arguments: the recipe, what the platform owns, and what it adds.

Pure, no engine. The recipe wins over the platform's defaults; the platform's own keys win over the
recipe. What a recipe asks of a GPU is left out on a CPU and said so.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_assets.workers.checkpoints import Checkpoint
from llm_assets.workers.failures import WorkerError
from llm_assets.workers.pissa import begins_with_pissa

# Training on a CPU is in float32: fp16 and pure_bf16 do not run there at all, bf16 is slower.
# `use_unsloth_gc` moves activations to CUDA; compiling for a CPU never came to an end (torch 2.13).
FOR_GPUS = (
    *("bf16", "fp16", "pure_bf16", "tf32", "bf16_full_eval", "fp16_full_eval", "use_unsloth_gc"),
    *("torch_compile", "torch_compile_backend", "torch_compile_mode"),
)
# Their modules are float32 beside the base's bfloat16: those that are trained whole (a resized vocabulary
# trains the embeddings, and new tokens resize it by themselves), and the norms.
MIXING_TYPES = ("additional_target", "add_special_tokens", "add_tokens", "resize_vocab", "upcast_layernorm")
SAVES_PER_TRAINING = 10
STAGES = ("sft", "dpo", "kto", "pt", "rm")
KEPT_CHECKPOINTS = 2  # at least: the engine deletes the last one before a new one is sealed

Arguments = dict[str, Any]


def arguments(order: Mapping[str, Any], checkpoint: Checkpoint | None) -> Arguments:
    """Everything that `run_exp` gets for this order."""
    recipe = dict(order["recipe"])
    if order["device"] == "cpu":
        recipe = {key: value for key, value in recipe.items() if key not in FOR_GPUS}
    held_out = has_held_out(Path(order["dataset_folder"]))
    return planned(recipe, held_out) | _owned(order, held_out, checkpoint)


def planned(recipe: Mapping[str, Any], held_out: bool) -> Arguments:
    """The recipe with the platform's defaults, before paths and what else the platform owns."""
    unevaluated = {} if held_out else {"eval_strategy": "no", "eval_on_start": False}
    return _defaults(recipe, held_out) | dict(recipe) | unevaluated


def left_out(order: Mapping[str, Any]) -> list[str]:
    """The recipe's keys that have no meaning on this device."""
    return [key for key in FOR_GPUS if order["device"] == "cpu" and order["recipe"].get(key)]


def check(order: Mapping[str, Any]) -> None:
    """Refuses what could only fail later.

    Raises:
        WorkerError: A stage that the platform does not train.
    """
    recipe = order["recipe"]
    if recipe.get("stage", "sft") not in STAGES:
        raise WorkerError(f"recipe.stage: {recipe['stage']!r} is not supported; valid: {', '.join(STAGES)}.")


def mixes_types(order: Mapping[str, Any]) -> bool:
    """Whether the engine makes some modules float32 and leaves the others as the base has them."""
    return any(order["recipe"].get(key) for key in MIXING_TYPES)


def resumable(order: Mapping[str, Any]) -> bool:
    """Whether a training can go on from a checkpoint.

    transformers cannot load a reward model's; PiSSA's would be taken for its first state.
    """
    return order["recipe"].get("stage") != "rm" and not begins_with_pissa(order)


def evaluable(recipe: Mapping[str, Any]) -> bool:
    """Whether LLaMA-Factory can evaluate a training: with the ASFT loss it fails."""
    return not recipe.get("use_asft_loss")


def has_held_out(dataset_folder: Path) -> bool:
    info = dataset_folder / "dataset_info.json"
    if not info.is_file():
        raise WorkerError(f"{info} is missing: this is no prepared dataset.")
    return "held_out" in json.loads(info.read_text(encoding="utf-8"))


def _defaults(recipe: Mapping[str, Any], held_out: bool) -> Arguments:
    """What a recipe that says nothing gets: ten checkpoints to resume from, an evaluation per epoch."""
    defaults: Arguments = {"stage": "sft", "finetuning_type": "lora"}
    if not {"save_steps", "save_strategy"} & recipe.keys():
        defaults |= {"save_strategy": "steps", "save_steps": 1 / SAVES_PER_TRAINING}
    if held_out and evaluable(recipe) and not {"eval_steps", "eval_strategy"} & recipe.keys():
        defaults |= {"eval_strategy": "epoch"}
    if held_out and "eval_steps" in recipe:
        defaults |= {"eval_strategy": "steps"}
    if "per_device_train_batch_size" in recipe:
        defaults |= {"per_device_eval_batch_size": recipe["per_device_train_batch_size"]}
    return defaults


def _owned(order: Mapping[str, Any], held_out: bool, checkpoint: Checkpoint | None) -> Arguments:
    kept = order["recipe"].get("save_total_limit", KEPT_CHECKPOINTS)
    owned: Arguments = {
        "model_name_or_path": order["base_folder"],
        "template": order["template"],
        "dataset": "train",
        "eval_dataset": "held_out" if held_out else None,
        "val_size": 0,
        "dataset_dir": order["dataset_folder"],
        "output_dir": order["scratch_folder"],
        "do_train": True,
        "do_eval": held_out and evaluable(order["recipe"]),
        "do_predict": False,
        "trust_remote_code": False,
        "push_to_hub": False,
        "report_to": "none",
        "plot_loss": False,
        "disable_tqdm": True,
        "save_only_model": False,
        "save_total_limit": KEPT_CHECKPOINTS if kept == 1 else kept,  # null and 0: all of them
        "include_num_input_tokens_seen": "non_padding",
        "logging_nan_inf_filter": False,  # it would hide that the training diverged
        "resume_from_checkpoint": str(checkpoint.folder) if checkpoint else None,
    }
    if order["device"] == "cpu":
        owned |= {"use_cpu": True, "dataloader_pin_memory": False}
    if begins_with_pissa(order):
        owned["pissa_convert"] = True
    if not resumable(order):
        owned["save_strategy"] = "no"
    return owned
