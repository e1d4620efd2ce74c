"""Every argument has one class; what is refused says why; old names lead to new ones."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from llm_assets.catalog import argument_classes
from llm_assets.catalog.argument_classes import refusal, use_of
from llm_assets.catalog.argument_page import page
from llm_assets.catalog.arguments import arguments
from llm_assets.catalog.combinations import RULES, broken_rules
from llm_assets.catalog.engine_packages import NEEDS, lacking, packages
from llm_assets.catalog.platform_keys import PLATFORM_KEYS
from llm_assets.catalog.recipes import Recipe, check_arguments
from llm_assets.catalog.renamed_arguments import RENAMED, renamed

ROOT = Path(__file__).parents[3]
TABLES = (argument_classes.SERVED, argument_classes.REFUSED, argument_classes.WITHOUT_EFFECT)
CLASSIFIED = [name for table in TABLES for names in table.values() for name in names.split()]
REFUSED = [name for names in argument_classes.REFUSED.values() for name in names.split()]
# A recipe that breaks each rule, by the rule's key and problem.
EXAMPLES: list[dict[str, Any]] = [
    {"stage": "dpo", "neat_packing": True},
    {"stage": "kto", "train_on_prompt": True},
    {"stage": "pt", "mask_history": True},
    {"finetuning_type": "full", "loraplus_lr_ratio": 2.0},
    {"finetuning_type": "full", "pissa_init": True},
    {"finetuning_type": "full", "use_dora": True},
    {"finetuning_type": "full", "use_rslora": True},
    {"finetuning_type": "full", "use_llama_pro": True},
    {"use_galore": True},
    {"use_apollo": True},
    {"use_badam": True},
    {"quantization_bit": 4, "add_special_tokens": "[a]"},
    {"quantization_bit": 4, "add_tokens": "[a]"},
    {"quantization_bit": 8, "resize_vocab": True},
    {"finetuning_type": "full", "stage": "kto", "add_special_tokens": "[a]"},
    {"finetuning_type": "full", "stage": "dpo", "add_tokens": "[a]"},
    {"eval_steps": 2.5},
    {"logging_steps": 1.5},
    {"save_steps": 2.5},
    {"use_asft_loss": True},
    {"finetuning_type": "full", "use_asft_loss": True, "eval_strategy": "epoch"},
    {"add_tokens": "[a]", "additional_target": "norm,embed_tokens"},
    {"mask_history": True, "train_on_prompt": True},
    {"stage": "dpo", "pref_loss": "ipo", "dpo_label_smoothing": 0.1},
    {"finetuning_type": "full", "use_galore": True, "use_badam": True},
    {"pissa_convert": True},
    {"stage": "dpo", "pissa_init": True},
    {"stage": "rm", "pissa_init": True},
    {"pissa_init": True, "quantization_bit": 4},
    {"use_dora": True, "quantization_bit": 8},
    {"finetuning_type": "full", "quantization_bit": 4},
    {"quantization_bit": 3},
    {"quantization_method": "gptq"},
    {"fp8": True, "quantization_bit": 4},
    {"fp16": True, "bf16": True},
    {"fp16_full_eval": True, "bf16_full_eval": True},
    {"stage": "rm", "load_best_model_at_end": True},
    {"load_best_model_at_end": True, "save_strategy": "steps", "eval_strategy": "epoch"},
    {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "no"},
    {"lr_scheduler_type": "cosine_with_min_lr"},
    {"early_stopping_steps": 2, "eval_strategy": "no"},
    {"early_stopping_steps": 2},
    {"dataloader_prefetch_factor": 2},
    {"torch_empty_cache_steps": 0},
    {"init_special_tokens": "desc_init"},
    {"logging_strategy": "no"},
    {"flash_attn": "fa3"},
]
BROKEN = {
    (rule.key, rule.problem): example
    for rule, example in zip(
        RULES,
        EXAMPLES,
        strict=True,
    )
}


def test_every_argument_of_the_engine_has_exactly_one_class() -> None:
    assert [name for name, times in Counter(CLASSIFIED).items() if times > 1] == []
    assert set(CLASSIFIED) & PLATFORM_KEYS == set()
    assert set(CLASSIFIED) | PLATFORM_KEYS == set(arguments())


def test_the_reference_page_is_current() -> None:
    written = (ROOT / "docs" / "reference" / "recipe-arguments.md").read_text(encoding="utf-8")
    assert written == page(), "run: python -m llm_assets.catalog.argument_page > docs/reference/…"


def test_an_argument_that_nobody_classified_has_no_class() -> None:
    with pytest.raises(KeyError, match="flux_capacitor"):
        use_of("flux_capacitor")


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_argument_is_refused_with_the_reason_unless_it_changes_nothing(name: str) -> None:
    default = arguments()[name].default
    assert check_arguments({name: default}).problems == ()
    problem = refusal(name, "linear" if default in (None, "") else not default)
    assert problem is not None
    assert problem.place == (name,)
    assert argument_classes.reason_of(name) in problem.problem


def test_what_has_no_effect_reaches_neither_the_engine_nor_the_fingerprint() -> None:
    arguments_ = check_arguments({"temperature": 0.1, "ddp_timeout": 1800, "lora_rank": 4}).arguments
    recipe = Recipe(arguments=arguments_, origin="models/m.yaml")
    assert recipe.effective == {"lora_rank": 4}
    assert recipe.without_effect == ("temperature",)


@pytest.mark.parametrize("need", NEEDS, ids=lambda need: f"{need.argument}-{need.packages[0]}")
def test_a_package_that_is_not_locked_is_asked_for_by_name_and_a_lock_that_has_it_is_enough(
    need: Any,
) -> None:
    for value in need.values or (True,):
        [problem] = lacking({need.argument: value}, set(), where="the locks")
        assert problem.place == (need.argument,)
        assert all(package in problem.problem for package in need.packages)
        assert list(lacking({need.argument: value}, set(need.packages), where="the locks")) == []
    unset = arguments()[need.argument].default
    assert list(lacking({need.argument: unset}, set(), where="the locks")) == []


def test_the_locks_say_what_the_engine_is_made_of() -> None:
    assert {"llamafactory", "bitsandbytes"} <= packages("cpu") & packages("cuda")
    assert packages() == packages("cpu") | packages("cuda")


@pytest.mark.parametrize("old", sorted(RENAMED))
def test_an_old_name_leads_to_what_there_is_now(old: str) -> None:
    assert old not in arguments()
    problem = renamed(old)
    assert problem is not None
    assert problem.valid
    now = RENAMED[old].now
    if now is not None:
        assert now in arguments()
        assert now in problem.valid
    [said] = check_arguments({old: True}).problems
    assert said == problem


def test_every_rule_has_a_recipe_that_breaks_it_and_defaults_break_none() -> None:
    assert set(BROKEN) == {(rule.key, rule.problem) for rule in RULES}
    for (key, problem), recipe in BROKEN.items():
        held_out = recipe.get("eval_strategy") != "no"
        said = {(each.place[0], each.problem) for each in broken_rules(recipe, held_out=held_out)}
        assert (key, problem) in said, recipe
    for stage in ("sft", "dpo", "kto", "pt", "rm"):
        for finetuning_type in ("lora", "full"):
            recipe = {"stage": stage, "finetuning_type": finetuning_type}
            assert check_arguments(recipe).problems == (), recipe


def test_without_held_out_rows_nothing_can_be_waited_for() -> None:
    watching = {"lr_scheduler_type": "greedy", "eval_strategy": "epoch"}
    assert list(broken_rules(watching, held_out=True)) == []
    assert [problem.place for problem in broken_rules(watching, held_out=False)] == [("lr_scheduler_type",)]
