"""What `check` says of a recipe against what LLaMA-Factory itself says of it."""

import ast
import itertools
import json
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_assets.catalog.argument_classes import use_of
from llm_assets.catalog.arguments import arguments
from llm_assets.catalog.engine_packages import NEEDS, packages
from llm_assets.catalog.recipes import check_arguments
from llm_assets.workers import training_arguments

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[3]
# Of LLaMA-Factory's `check_version`, what no argument of a recipe asks for: its own parts, hubs, exports,
# predictions, and base models that are quantized already.
NOT_A_RECIPES = {
    *("accelerate", "datasets", "peft", "transformers", "trl"),
    *("vllm", "sglang", "modelscope", "openmind", "optimum"),
    *("matplotlib", "jieba", "nltk", "rouge-chinese", "swanlab"),
    *("aqlm", "autoawq", "gptqmodel"),
}
# Values that break rules in pairs; each is fine in some company.
VALUES: dict[str, tuple[Any, ...]] = {
    "stage": ("sft", "dpo", "kto", "pt", "rm"),
    "finetuning_type": ("lora", "full"),
    "quantization_bit": (None, 4, 8),
    "neat_packing": (True,),
    "train_on_prompt": (True,),
    "mask_history": (True,),
    "pref_loss": ("sigmoid", "ipo", "simpo", "orpo"),
    "dpo_label_smoothing": (0.0, 0.1),
    "loraplus_lr_ratio": (None, 2.0),
    "use_rslora": (True,),
    "use_dora": (True,),
    "use_llama_pro": (True,),
    "use_galore": (True,),
    "use_badam": (True,),
    "resize_vocab": (True,),
    "load_best_model_at_end": (True,),
    "save_strategy": ("no", "steps", "epoch", "best"),
    "eval_strategy": ("no", "steps", "epoch"),
    "save_steps": (0.1, 0.25, 10, 25, 2.5),
    "eval_steps": (0.1, 0.05, 10, 5, 2.5),
    "logging_steps": (1, 10, 0.05, 1.5),
    "lr_scheduler_type": ("linear", "reduce_lr_on_plateau", "greedy"),
    "optim": tuple(arguments()["optim"].choices),
    "fp8": (True,),
    "dataloader_num_workers": (0, 2),
    "dataloader_prefetch_factor": (2,),
    "torch_empty_cache_steps": (0, 5),
    "streaming": (True,),
    "max_samples": (10,),
    "fsdp": ("full_shard",),
    "deepspeed": ({"train_batch_size": 1},),
    "mixture_of_depths": ("convert",),
    "enable_liger_kernel": (True,),
    "use_unsloth": (True,),
    "use_adam_mini": (True,),
    "use_apollo": (True,),
    "use_kt": (True,),
    "quantization_device_map": ("auto",),
    "infer_backend": ("vllm",),
    "warmup_steps": (0, 3),
}
RANDOM_RECIPES = 250

Verdicts = Callable[[list[dict[str, Any]]], list[str | None]]


@pytest.fixture(scope="module")
def verdicts(train_python: Path) -> Verdicts:
    def ask(recipes: list[dict[str, Any]]) -> list[str | None]:
        ran = subprocess.run(
            [train_python, "-m", "tests.integration.catalog.recipe_verdicts"],
            input=json.dumps(recipes),
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
        )
        answers: list[str | None] = json.loads(ran.stdout.splitlines()[-1])
        return answers

    return ask


def _recipes() -> list[dict[str, Any]]:
    single = [{name: value} for name, values in VALUES.items() for value in values]
    chance = random.Random(10)
    mixed = []
    for _ in range(RANDOM_RECIPES):
        names = chance.sample(sorted(VALUES), chance.randint(2, 5))
        mixed.append({name: chance.choice(VALUES[name]) for name in names})
    return single + mixed


def test_what_llamafactory_refuses_is_refused_before_a_training_starts(verdicts: Verdicts) -> None:
    recipes = _recipes()
    theirs = verdicts([training_arguments.planned(_reaching(recipe), held_out=True) for recipe in recipes])
    assert sum(each is not None for each in theirs) > len(recipes) // 4
    missed = [
        (recipe, complaint)
        for recipe, complaint in zip(recipes, theirs, strict=True)
        if complaint is not None and not check_arguments(recipe).problems
    ]
    assert missed == []


def _reaching(recipe: dict[str, Any]) -> dict[str, Any]:
    """Without what the platform leaves out; what it refuses stays in, for the engine to judge."""
    return {name: value for name, value in recipe.items() if use_of(name) != "without effect"}


def test_a_package_that_llamafactory_asks_for_is_in_the_table(train_python: Path) -> None:
    source = next(train_python.parents[1].glob("lib/python3*/site-packages/llamafactory"))
    asked = {
        argument.value
        for path in sorted(source.rglob("*.py"))
        if "v1" not in path.relative_to(source).parts
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "check_version"
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }
    names = {_package(requirement) for requirement in asked}
    known = set(itertools.chain.from_iterable(need.packages for need in NEEDS))
    assert len(names) > len(NOT_A_RECIPES)
    assert names - known - NOT_A_RECIPES == set()


def _package(requirement: str) -> str:
    name = requirement
    for sign in "<>=,":
        name = name.partition(sign)[0]
    return name.strip().lower().replace("_", "-")


def test_every_optimizer_that_lacks_its_package_and_no_other_is_refused(verdicts: Verdicts) -> None:
    names = [name for name in arguments()["optim"].choices if not name.startswith(("lomo", "adalomo"))]
    theirs = verdicts([{"optim": name} for name in names])
    for name, complaint in zip(names, theirs, strict=True):
        wanted = [need for need in NEEDS if need.argument == "optim" and name in need.values]
        missing = any(not set(need.packages) <= packages() for need in wanted)
        if not name.startswith(("galore", "apollo")):
            assert missing == (complaint is not None), (name, complaint)
        assert missing == bool(check_arguments({"optim": name}).problems), name
