"""Recipes: LLaMA-Factory arguments without the platform's own, in the types that LLaMA-Factory has for them.

What a recipe tells by itself is judged here: names, types, classes, packages, combinations. How it goes
with the model's serving and its base model is judged in `models` and `base_limits`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llm_assets.catalog.argument_classes import refusal, use_of
from llm_assets.catalog.arguments import WrongValueError, arguments, engine, templates, typed
from llm_assets.catalog.combinations import broken_rules
from llm_assets.catalog.engine_packages import lacking, packages
from llm_assets.catalog.mistakes import Problem, did_you_mean, one_of
from llm_assets.catalog.platform_keys import PLATFORM_KEYS, changes_nothing, platforms_reason
from llm_assets.catalog.renamed_arguments import renamed

STAGES = ("sft", "dpo", "kto", "pt", "rm")
FINETUNING_TYPES = ("lora", "full")
# What LLaMA-Factory trains and no later step of the chain takes.
UNSUPPORTED = {
    "oft": "it trains, and then nothing merges its adapter, neither LLaMA-Factory's export nor the stream, "
    "and vLLM serves none",
    "freeze": "it trains some layers and leaves a whole model; the chain takes adapters, or a model that was "
    "trained in full",
    "ppo": "it needs a reward model beside the base model, and a training has one base model and one dataset",
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a training is given. `origin` is the file it came from, below the catalog's folder."""

    arguments: dict[str, object]
    origin: str
    replaced: tuple[str, ...] = ()

    @property
    def is_the_models(self) -> bool:
        """Whether it stands in the model's own file, below `recipe:`."""
        return self.origin.startswith("models/")

    @property
    def effective(self) -> dict[str, object]:
        """What reaches LLaMA-Factory: the arguments but for those that change no training here."""
        return {name: value for name, value in self.arguments.items() if use_of(name) == "served"}

    @property
    def without_effect(self) -> tuple[str, ...]:
        """The arguments that somebody set and that change nothing."""
        return tuple(
            name
            for name, value in self.arguments.items()
            if name not in self.effective and value != arguments()[name].default
        )

    @property
    def stage(self) -> str:
        return str(self.arguments.get("stage", "sft"))

    @property
    def finetuning_type(self) -> str:
        return str(self.arguments.get("finetuning_type", "lora"))

    def number(self, name: str, default: int) -> int:
        """An argument that is a whole number; the default where it is not set."""
        value = self.arguments.get(name)
        return int(value) if isinstance(value, int | float | str) else default

    @property
    def trains_on_prompt(self) -> bool:
        """Whether the questions are learned, too."""
        return bool(self.arguments.get("train_on_prompt", False))


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Arguments that were looked through: the recipe's own, the platform's among them, and the problems."""

    arguments: dict[str, object]
    platforms: dict[str, str]
    problems: tuple[Problem, ...]


def check_arguments(
    written: Mapping[str, object], *, template: str | None = None, held_out: bool = True
) -> Checked:
    """Look through what a file says. `platforms` maps each key that is not the recipe's to the reason.

    Args:
        written: Arguments as LLaMA-Factory's `train` takes them.
        template: The base model's, which the file may repeat; None when it is not known.
        held_out: Whether the model holds rows out, on which a training evaluates.
    """
    own: dict[str, object] = {}
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
    problems += _contradictions(own, held_out)
    return Checked(arguments=own, platforms=platforms, problems=tuple(problems))


def _unknown(name: str) -> Problem:
    if (known := renamed(name)) is not None:
        return known
    recipe_keys = arguments().keys() - PLATFORM_KEYS
    otherwise = f"the keys are the arguments of `llamafactory-cli train` ({engine()})"
    valid = did_you_mean(name, sorted(recipe_keys), otherwise=otherwise)
    return Problem(place=(name,), problem="unknown recipe key", valid=valid)


def _unknown_template(value: Any) -> list[Problem]:
    if value is None or str(value) in templates():
        return []
    valid = did_you_mean(value, templates(), otherwise="leave it out; the base model's file has it")
    return [Problem(place=("template",), problem=f"unknown template {value!r}", valid=valid)]


def _contradictions(recipe: Mapping[str, object], held_out: bool) -> Iterator[Problem]:
    stage, finetuning_type = recipe.get("stage", "sft"), recipe.get("finetuning_type", "lora")
    if stage not in STAGES:
        yield Problem(place=("stage",), problem=_not_supported(stage), valid=one_of(STAGES))
    if finetuning_type not in FINETUNING_TYPES:
        valid = "lora or full; QLoRA is lora with quantization_bit 4 or 8"
        yield Problem(place=("finetuning_type",), problem=_not_supported(finetuning_type), valid=valid)
    yield from filter(None, map(refusal, recipe.keys(), recipe.values()))
    yield from lacking(recipe, packages(), where="the train engine's locks")
    yield from broken_rules(recipe, held_out=held_out)


def _not_supported(value: Any) -> str:
    why = UNSUPPORTED.get(str(value))
    return f"{value!r} is not supported: {why}" if why else f"{value!r} is not supported"
