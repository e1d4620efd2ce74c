"""Arguments that do not go together, as LLaMA-Factory 0.9.5 and transformers 5.6 have it.

Their own checks (hparams/parser.py, hparams/finetuning_args.py, hparams/data_args.py, training_args.py) run
when a training starts, on the machine with the GPU; a few mistakes they find only later, or never. Judged is
the recipe as the training gets it: with the platform's defaults (`workers/training_arguments.py`).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llm_assets.catalog.mistakes import Problem
from llm_assets.workers import training_arguments
from llm_assets.workers.merging.base_models import embedding_kind

_Recipe = Mapping[str, Any]
QUANTIZATION_BITS = (4, 8)
NEW_TOKENS = ("add_special_tokens", "add_tokens")
RESIZING = (*NEW_TOKENS, "resize_vocab")
_LOW_RANK_OPTIMIZERS = ("use_galore", "use_apollo", "use_badam")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What is wrong with `key` when `broken` holds of the recipe, and what would be right."""

    key: str
    broken: Callable[[_Recipe], Any]
    problem: str
    valid: str


def _stage(recipe: _Recipe) -> str:
    return str(recipe.get("stage", "sft"))


def _is(finetuning_type: str, recipe: _Recipe) -> bool:
    return bool(recipe.get("finetuning_type", "lora") == finetuning_type)


def _compares_with_reference(recipe: _Recipe) -> bool:
    return _stage(recipe) == "dpo" and recipe.get("pref_loss", "sigmoid") not in ("orpo", "simpo")


def _loads_reference(recipe: _Recipe) -> bool:
    """Whether the engine loads the base model a second time, to compare with."""
    compares = _stage(recipe) == "kto" or _compares_with_reference(recipe) or recipe.get("use_asft_loss")
    return bool(compares and _is("full", recipe))


def _evaluates(recipe: _Recipe) -> bool:
    return bool(recipe.get("eval_strategy", "no") != "no")


def named_embeddings(modules: Any) -> set[str]:
    """Which embeddings (`input`, `output`) are among these modules: a list, or a text with commas."""
    names = modules.split(",") if isinstance(modules, str) else modules or ()
    return {kind for name in names if (kind := embedding_kind(name.strip()))}


def _only_for_sft(key: str) -> Rule:
    return Rule(
        key=key,
        broken=lambda recipe: recipe.get(key) and _stage(recipe) != "sft",
        problem="it is for stage sft alone",
        valid="leave it out",
    )


def _only_for_lora(key: str) -> Rule:
    return Rule(
        key=key,
        broken=lambda recipe: recipe.get(key) and _is("full", recipe),
        problem="it is for finetuning_type lora alone",
        valid="leave it out, or set lora",
    )


def _only_for_full(key: str) -> Rule:
    return Rule(
        key=key,
        broken=lambda recipe: recipe.get(key) and _is("lora", recipe),
        problem="LLaMA-Factory does not use it with lora",
        valid="finetuning_type full",
    )


def _not_quantized(key: str) -> Rule:
    return Rule(
        key=key,
        broken=lambda recipe: recipe.get(key) and recipe.get("quantization_bit"),
        problem="a quantized base model's embeddings cannot be resized",
        valid="leave it out, or train without quantization_bit",
    )


def _not_compared_with(key: str) -> Rule:
    return Rule(
        key=key,
        broken=lambda recipe: recipe.get(key) and _loads_reference(recipe),
        problem="with finetuning_type full LLaMA-Factory fails to load the model that this training compares "
        "with",
        valid="leave it out, or set lora",
    )


def _whole_above_one(key: str, strategy: str) -> Rule:
    return Rule(
        key=key,
        broken=lambda recipe: (
            recipe.get(strategy, "steps") == "steps"
            and (recipe.get(key) or 0) > 1
            and recipe[key] != int(recipe[key])
        ),
        problem="above 1 it counts steps",
        valid="a whole number, or a share of the training below 1",
    )


def _saves_at_other_times(recipe: _Recipe) -> bool:
    """Whether the best checkpoint may not be there at the end."""
    if not recipe.get("load_best_model_at_end") or recipe.get("save_strategy") == "best":
        return False
    if recipe.get("eval_strategy", "no") != recipe.get("save_strategy", "steps"):
        return True
    if recipe["eval_strategy"] != "steps":
        return False
    saves = recipe.get("save_steps", 500)
    evaluations = recipe.get("eval_steps") or recipe.get("logging_steps", 500)
    return (saves < 1) != (evaluations < 1) or round(saves * 1e6) % round(evaluations * 1e6) != 0


RULES = (
    _only_for_sft("neat_packing"),
    _only_for_sft("train_on_prompt"),
    _only_for_sft("mask_history"),
    _only_for_lora("loraplus_lr_ratio"),
    _only_for_lora("pissa_init"),
    _only_for_lora("use_dora"),
    _only_for_lora("use_rslora"),
    _only_for_lora("use_llama_pro"),
    _only_for_full("use_galore"),
    _only_for_full("use_apollo"),
    _only_for_full("use_badam"),
    *(_not_quantized(key) for key in RESIZING),
    *(_not_compared_with(key) for key in NEW_TOKENS),
    _whole_above_one("eval_steps", "eval_strategy"),
    _whole_above_one("logging_steps", "logging_strategy"),
    _whole_above_one("save_steps", "save_strategy"),
    Rule(
        key="use_asft_loss",
        broken=lambda recipe: recipe.get("use_asft_loss") and _is("lora", recipe),
        problem="with lora LLaMA-Factory loads no reference model for it",
        valid="false, or finetuning_type full",
    ),
    Rule(
        key="use_asft_loss",
        broken=lambda recipe: (
            recipe.get("use_asft_loss") and (_evaluates(recipe) or recipe.get("eval_on_start"))
        ),
        problem="LLaMA-Factory cannot evaluate with it",
        valid="false, or eval_strategy no (and eval_on_start false)",
    ),
    Rule(
        key="additional_target",
        broken=lambda recipe: (
            recipe.get("additional_target")
            and any(recipe.get(key) for key in RESIZING)
            and named_embeddings(recipe["additional_target"]) != {"input", "output"}
        ),
        problem="the vocabulary is resized, and embeddings that are not named here are neither trained nor "
        "kept: the merged model would have other ones for the new tokens",
        valid="null, which trains both embeddings, or name both (embed_tokens,lm_head)",
    ),
    Rule(
        key="mask_history",
        broken=lambda recipe: recipe.get("mask_history") and recipe.get("train_on_prompt"),
        problem="train_on_prompt is true as well",
        valid="set one of the two",
    ),
    Rule(
        key="dpo_label_smoothing",
        broken=lambda recipe: (
            _stage(recipe) == "dpo"
            and recipe.get("pref_loss", "sigmoid") != "sigmoid"
            and recipe.get("dpo_label_smoothing", 0) > 1e-6
        ),
        problem="only pref_loss sigmoid smooths labels",
        valid="0, or pref_loss sigmoid",
    ),
    Rule(
        key="use_galore",
        broken=lambda recipe: sum(bool(recipe.get(key)) for key in _LOW_RANK_OPTIMIZERS) > 1,
        problem="GaLore, APOLLO and BAdam exclude each other",
        valid="one of the three",
    ),
    Rule(
        key="pissa_convert",
        broken=lambda recipe: recipe.get("pissa_convert") and not recipe.get("pissa_init"),
        problem="without pissa_init there is nothing to convert",
        valid="false",
    ),
    Rule(
        key="pissa_init",
        broken=lambda recipe: (
            recipe.get("pissa_init") and (_stage(recipe) == "kto" or _compares_with_reference(recipe))
        ),
        problem="PiSSA changes the base model, which this stage compares with",
        valid="false",
    ),
    Rule(
        key="pissa_init",
        broken=lambda recipe: recipe.get("pissa_init") and _stage(recipe) == "rm",
        problem="LLaMA-Factory does not convert a reward model's adapter to one for the untouched base model",
        valid="false",
    ),
    Rule(
        key="pissa_init",
        broken=lambda recipe: recipe.get("pissa_init") and recipe.get("quantization_bit"),
        problem="a quantized base model cannot be decomposed",
        valid="false, or train without quantization_bit",
    ),
    Rule(
        key="use_dora",
        broken=lambda recipe: recipe.get("use_dora") and recipe.get("quantization_bit"),
        problem="LLaMA-Factory trains no DoRA on a quantized base model",
        valid="false, or train without quantization_bit",
    ),
    Rule(
        key="quantization_bit",
        broken=lambda recipe: recipe.get("quantization_bit") and _is("full", recipe),
        problem="only finetuning_type lora trains on a quantized base model",
        valid="leave it out, or set lora",
    ),
    Rule(
        key="quantization_bit",
        broken=lambda recipe: recipe.get("quantization_bit") not in (None, *QUANTIZATION_BITS),
        problem="this number of bits is not supported",
        valid="4, 8 or null",
    ),
    Rule(
        key="quantization_method",
        broken=lambda recipe: recipe.get("quantization_method", "bnb") not in ("bnb", "hqq", "eetq"),
        problem="it is for base models that are quantized already; none is quantized for a training by it",
        valid="bnb",
    ),
    Rule(
        key="fp8",
        broken=lambda recipe: recipe.get("fp8") and recipe.get("quantization_bit"),
        problem="FP8 training and a quantized base model exclude each other",
        valid="leave one of the two out",
    ),
    Rule(
        key="fp16",
        broken=lambda recipe: recipe.get("bf16") and recipe.get("fp16"),
        problem="bf16 is true as well",
        valid="set one of the two",
    ),
    Rule(
        key="fp16_full_eval",
        broken=lambda recipe: recipe.get("bf16_full_eval") and recipe.get("fp16_full_eval"),
        problem="bf16_full_eval is true as well",
        valid="set one of the two",
    ),
    Rule(
        key="load_best_model_at_end",
        broken=lambda recipe: (
            recipe.get("load_best_model_at_end") and (_stage(recipe) == "rm" or recipe.get("pissa_init"))
        ),
        problem="LLaMA-Factory cannot go on from a checkpoint of a reward model or of PiSSA",
        valid="false",
    ),
    Rule(
        key="load_best_model_at_end",
        broken=_saves_at_other_times,
        problem="not every checkpoint is evaluated: the training saves and evaluates at different steps",
        valid="eval_strategy and save_strategy alike, and save_steps a multiple of eval_steps",
    ),
    Rule(
        key="lr_scheduler_type",
        broken=lambda recipe: (
            recipe.get("lr_scheduler_type") in ("reduce_lr_on_plateau", "greedy") and not _evaluates(recipe)
        ),
        problem="it watches the loss on held-out rows, and the training evaluates none",
        valid="another schedule, or an eval_strategy",
    ),
    Rule(
        key="lr_scheduler_type",
        broken=lambda recipe: (
            recipe.get("lr_scheduler_type") in ("cosine_with_min_lr", "cosine_warmup_with_min_lr")
            and not {"min_lr", "min_lr_rate"} & set(recipe.get("lr_scheduler_kwargs") or ())
        ),
        problem="it needs the least learning rate",
        valid="lr_scheduler_kwargs: {min_lr_rate: 0.1}",
    ),
    Rule(
        key="early_stopping_steps",
        broken=lambda recipe: recipe.get("early_stopping_steps") is not None and not _evaluates(recipe),
        problem="the training evaluates nothing that could stop it",
        valid="an eval_strategy, and a dataset.held_out_fraction above 0",
    ),
    Rule(
        key="early_stopping_steps",
        broken=lambda recipe: (
            recipe.get("early_stopping_steps") is not None
            and not recipe.get("load_best_model_at_end")
            and not recipe.get("metric_for_best_model")
            and recipe.get("lr_scheduler_type") not in ("reduce_lr_on_plateau", "greedy")
        ),
        problem="there is no metric to watch",
        valid="metric_for_best_model: loss",
    ),
    Rule(
        key="dataloader_prefetch_factor",
        broken=lambda recipe: (
            recipe.get("dataloader_prefetch_factor") is not None and not recipe.get("dataloader_num_workers")
        ),
        problem="without workers nothing is fetched in advance",
        valid="leave it out, or dataloader_num_workers above 0",
    ),
    Rule(
        key="torch_empty_cache_steps",
        broken=lambda recipe: (
            recipe.get("torch_empty_cache_steps") is not None and recipe["torch_empty_cache_steps"] < 1
        ),
        problem="it is too small",
        valid="a number above 0",
    ),
    Rule(
        key="init_special_tokens",
        broken=lambda recipe: recipe.get("init_special_tokens", "noise_init") != "noise_init",
        problem="descriptions of tokens lie in a file beside the recipe, and the platform sets every path",
        valid="noise_init",
    ),
    Rule(
        key="logging_strategy",
        broken=lambda recipe: recipe.get("logging_strategy") == "no",
        problem="no loss would be logged, and the adapter's checks read it",
        valid="steps or epoch",
    ),
    Rule(
        key="flash_attn",
        broken=lambda recipe: recipe.get("flash_attn") == "fa3",
        problem="LLaMA-Factory lists it and then refuses it",
        valid="auto, sdpa or disabled",
    ),
)


def broken_rules(recipe: _Recipe, *, held_out: bool) -> Iterator[Problem]:
    """Every rule that a recipe breaks, as the training would get it.

    Args:
        held_out: Whether rows are held out, on which the training evaluates.
    """
    planned = training_arguments.planned(recipe, held_out)
    for rule in RULES:
        if rule.broken(planned):
            yield Problem(place=(rule.key,), problem=rule.problem, valid=rule.valid)
