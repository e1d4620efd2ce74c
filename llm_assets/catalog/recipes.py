"""Recipes: LLaMA-Factory arguments without the platform's own, in the types that LLaMA-Factory has for them.

Not covered: combinations that only LLaMA-Factory refuses (`use_dora` with `finetuning_type: full`); it
does so in the first seconds of a training, before the base model is loaded.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llm_assets.catalog.arguments import WrongValueError, arguments, engine, templates, typed
from llm_assets.catalog.mistakes import Problem, did_you_mean, one_of
from llm_assets.catalog.platform_keys import PLATFORM_KEYS, changes_nothing, platforms_reason

STAGES = ("sft", "dpo", "kto", "pt", "rm")
FINETUNING_TYPES = ("lora", "full")
QUANTIZATION_BITS = (4, 8)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a training is given. `origin` is the file it came from, below the catalog's folder."""

    arguments: dict[str, Any]
    origin: str
    replaced: tuple[str, ...] = ()

    @property
    def stage(self) -> str:
        return str(self.arguments.get("stage", "sft"))

    @property
    def finetuning_type(self) -> str:
        return str(self.arguments.get("finetuning_type", "lora"))

    @property
    def quantized(self) -> bool:
        """QLoRA, which needs a GPU."""
        return self.arguments.get("quantization_bit") is not None


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Arguments that were looked through: the recipe's own, the platform's among them, and the problems."""

    arguments: dict[str, Any]
    platforms: dict[str, str]
    problems: tuple[Problem, ...]


def check_arguments(written: Mapping[str, Any], *, template: str | None = None) -> Checked:
    """Look through what a file says. `platforms` maps each key that is not the recipe's to the reason.

    Args:
        written: Arguments as LLaMA-Factory's `train` takes them.
        template: The base model's, which the file may repeat; None when it is not known.
    """
    own: dict[str, Any] = {}
    platforms: dict[str, str] = {}
    problems: list[Problem] = []
    for name, value in written.items():
        if name not in arguments():
            problems.append(_unknown(name))
        elif (reason := platforms_reason(name, value)) is not None:
            problems += _unknown_template(value) if name == "template" else []
            if not changes_nothing(name, value) and not (name == "template" and value == template):
                platforms[name] = reason
        else:
            try:
                own[name] = typed(name, value)
            except WrongValueError as error:
                problems.append(Problem(place=(name,), problem=error.problem, valid=error.valid))
    own = dict(sorted(own.items()))
    return Checked(arguments=own, platforms=platforms, problems=(*problems, *_contradictions(own)))


def _unknown(name: str) -> Problem:
    recipe_keys = arguments().keys() - PLATFORM_KEYS
    otherwise = f"the keys are the arguments of `llamafactory-cli train` ({engine()})"
    valid = did_you_mean(name, sorted(recipe_keys), otherwise=otherwise)
    return Problem(place=(name,), problem="unknown recipe key", valid=valid)


def _unknown_template(value: Any) -> list[Problem]:
    if value is None or str(value) in templates():
        return []
    valid = did_you_mean(value, templates(), otherwise="leave it out; the base model's file has it")
    return [Problem(place=("template",), problem=f"unknown template {value!r}", valid=valid)]


def _contradictions(recipe: Mapping[str, Any]) -> Iterator[Problem]:
    stage, finetuning_type = recipe.get("stage", "sft"), recipe.get("finetuning_type", "lora")
    bits = recipe.get("quantization_bit")
    if stage not in STAGES:
        yield Problem(place=("stage",), problem=f"{stage!r} is not supported", valid=one_of(STAGES))
    if finetuning_type not in FINETUNING_TYPES:
        problem = f"{finetuning_type!r} is not supported"
        valid = "lora or full; QLoRA is lora with quantization_bit 4 or 8"
        yield Problem(place=("finetuning_type",), problem=problem, valid=valid)
    if bits is not None and bits not in QUANTIZATION_BITS:
        yield Problem(place=("quantization_bit",), problem=f"{bits!r} is not supported", valid="4, 8 or null")
    if bits is not None and finetuning_type == "full":
        problem = "only finetuning_type lora trains on a quantized base model"
        yield Problem(place=("quantization_bit",), problem=problem, valid="leave it out, or set lora")
    if recipe.get("bf16") and recipe.get("fp16"):
        yield Problem(place=("fp16",), problem="bf16 is true as well", valid="set one of the two")
