"""For every argument that the platform serves, a recipe that sets it to something else than its default."""

from typing import Any

from llm_assets.catalog.argument_classes import use_of
from llm_assets.catalog.arguments import arguments
from llm_assets.catalog.engine_packages import NEEDS, packages
from llm_assets.workers.training_arguments import FOR_GPUS

_FULL = {"finetuning_type": "full"}
_QUANTIZED = {"quantization_bit": 4}
_BEST = {"load_best_model_at_end": True, "save_strategy": "epoch", "eval_strategy": "epoch"}
_DPO = {"stage": "dpo"}
_KTO = {"stage": "kto"}
_WORKERS = {"dataloader_num_workers": 1}

# Where another value of the argument alone is not enough, or its type does not tell one.
RECIPES: dict[str, dict[str, Any]] = {
    "accelerator_config": {"accelerator_config": {"split_batches": True}},
    "add_special_tokens": {"add_special_tokens": "[s1],[s2]"},
    "add_tokens": {"add_tokens": "[t1],[t2]"},
    "additional_target": {"additional_target": "embed_tokens,lm_head"},
    "asft_alpha": {"asft_alpha": 0.2, "use_asft_loss": True, **_FULL},
    "bf16_full_eval": {"bf16_full_eval": True},
    "data_seed": {"data_seed": 7},
    "dataloader_persistent_workers": {"dataloader_persistent_workers": True, **_WORKERS},
    "dataloader_prefetch_factor": {"dataloader_prefetch_factor": 2, **_WORKERS},
    "dataloader_num_workers": _WORKERS,
    "debug": {"debug": "underflow_overflow"},
    "default_system": {"default_system": "You are a shop."},
    "dpo_label_smoothing": {"dpo_label_smoothing": 0.1, **_DPO},
    "eaft_alpha": {"eaft_alpha": 0.5, "use_eaft_loss": True},
    "early_stopping_steps": {"early_stopping_steps": 3, **_BEST},
    "eval_accumulation_steps": {"eval_accumulation_steps": 1},
    "eval_steps": {"eval_steps": 2},
    "eval_strategy": {"eval_strategy": "steps", "eval_steps": 2},
    "finetuning_type": _FULL,
    "freeze_trainable_layers": {"freeze_trainable_layers": 1, "use_llama_pro": True},
    "gradient_checkpointing": {"gradient_checkpointing": True},
    "gradient_checkpointing_kwargs": {"gradient_checkpointing_kwargs": {"use_reentrant": False}},
    "greater_is_better": {"greater_is_better": False, **_BEST},
    "include_for_metrics": {"include_for_metrics": ["loss"]},
    "init_special_tokens": {"init_special_tokens": "noise_init", "add_special_tokens": "[s]"},
    "kto_chosen_weight": {"kto_chosen_weight": 1.2, **_KTO},
    "kto_rejected_weight": {"kto_rejected_weight": 0.8, **_KTO},
    "ld_alpha": {"ld_alpha": 0.5, **_DPO},
    "load_best_model_at_end": _BEST,
    "length_column_name": {"length_column_name": "len"},
    "logging_steps": {"logging_steps": 2},
    "lora_alpha": {"lora_alpha": 32},
    "lora_target": {"lora_target": "q_proj,v_proj"},
    "loraplus_lr_embedding": {"loraplus_lr_embedding": 1e-5, "loraplus_lr_ratio": 4.0},
    "loraplus_lr_ratio": {"loraplus_lr_ratio": 4.0},
    "lr_scheduler_kwargs": {
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr": 1e-6},
    },
    "max_samples": {"max_samples": 12},
    "max_steps": {"max_steps": 3},
    "metric_for_best_model": {"metric_for_best_model": "eval_loss", **_BEST},
    "moe_aux_loss_coef": {"moe_aux_loss_coef": 0.01},
    "neftune_noise_alpha": {"neftune_noise_alpha": 5.0},
    "optim_args": {"optim": "adafactor", "optim_args": "clip_threshold=2.0"},
    "optim_target_modules": {"optim_target_modules": ["q_proj"]},
    "pissa_convert": {"pissa_convert": True, "pissa_init": True},
    "pissa_init": {"pissa_init": True},
    "pissa_iter": {"pissa_iter": 4, "pissa_init": True},
    "pref_bco_weight": {"pref_bco_weight": 0.1, **_DPO},
    "pref_beta": {"pref_beta": 0.2, **_DPO},
    "pref_ftx": {"pref_ftx": 0.1, **_DPO},
    "pref_loss": {"pref_loss": "orpo", **_DPO},
    "preprocessing_num_workers": {"preprocessing_num_workers": 2},
    "quantization_bit": _QUANTIZED,
    "quantization_type": {"quantization_type": "fp4", **_QUANTIZED},
    "double_quantization": {"double_quantization": False, **_QUANTIZED},
    "resize_vocab": {"resize_vocab": True},
    "save_steps": {"save_steps": 2},
    "save_strategy": {"save_strategy": "epoch"},
    "save_total_limit": {"save_total_limit": 3},
    "simpo_gamma": {"simpo_gamma": 0.4, "pref_loss": "simpo", **_DPO},
    "stage": _DPO,
    "tool_format": {"tool_format": "default"},
    "torch_empty_cache_steps": {"torch_empty_cache_steps": 1},
    "train_sampling_strategy": {"train_sampling_strategy": "group_by_length"},
    "use_asft_loss": {"use_asft_loss": True, **_FULL},
    "use_dora": {"use_dora": True},
}
# What one value of the list of choices is enough for.
CHOSEN = {
    "flash_attn": "sdpa",
    "log_level": "error",
    "logging_strategy": "epoch",
    "lr_scheduler_type": "cosine",
    "optim": "adamw_torch",
}
# Settings of what the engine's lock has no package for, and the one method of quantization that it has.
OPTIONS = ("apollo_", "badam_", "fp8_", "galore_", "kt_", "liger_kernel_config", "quantization_method")


def recipe_for(name: str) -> dict[str, Any]:
    """A recipe that sets the argument, and what it needs."""
    if name in RECIPES:
        return RECIPES[name]
    argument = arguments()[name]
    if name in CHOSEN:
        return {name: CHOSEN[name]}
    if argument.choices:
        return {name: next(choice for choice in argument.choices if choice != argument.default)}
    if "boolean" in argument.types:
        return {name: not argument.default}
    if "integer" in argument.types:
        return {name: (argument.default or 0) + 1}
    if "number" in argument.types:
        return {name: (argument.default or 0) / 2 + 0.01}
    raise LookupError(f"{name} ({argument.types}) needs a recipe in RECIPES")


def served_on_a_cpu() -> list[str]:
    """Every argument that is served and that changes a training on a CPU with this engine."""
    lacking = {need.argument for need in NEEDS if not need.values and not set(need.packages) <= packages()}
    return sorted(
        name
        for name in arguments()
        if use_of(name) == "served" and name not in {*lacking, *FOR_GPUS} and not name.startswith(OPTIONS)
    )
