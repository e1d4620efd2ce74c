"""LLaMA-Factory's arguments and templates, as `recipe_arguments.json` lists them, and one value against one.

The file is written by `llm_assets.workers.recipe_arguments` in the train engine.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from llm_assets.catalog.mistakes import did_you_mean, one_of, shown

_TRUE = {"true", "yes", "on", "y", "t", "1"}
_FALSE = {"false", "no", "off", "n", "f", "0"}
_ARTICLES = {
    "array": "a list of texts",
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "null",
    "number": "a number",
    "object": "a mapping",
    "string": "a text",
}
_ABOVE_ZERO = {
    "cutoff_len",
    "eval_steps",
    "gradient_accumulation_steps",
    "learning_rate",
    "logging_steps",
    "lora_alpha",
    "lora_rank",
    "max_samples",
    "num_train_epochs",
    "per_device_eval_batch_size",
    "per_device_train_batch_size",
    "save_steps",
}
_NOT_BELOW_ZERO = {"lora_dropout", "max_grad_norm", "warmup_ratio", "warmup_steps", "weight_decay"}


@dataclass(frozen=True, kw_only=True)
class Argument:
    """One argument of `llamafactory-cli train`: JSON types, and the texts it is limited to, if any."""

    types: tuple[str, ...]
    default: Any
    description: str
    choices: tuple[str, ...] = ()

    @property
    def rule(self) -> str:
        if self.choices:
            return one_of(self.choices, at_most=50) + (", true or false" if "boolean" in self.types else "")
        return " or ".join(_ARTICLES[kind] for kind in self.types)


@cache
def arguments() -> Mapping[str, Argument]:
    """Every argument that LLaMA-Factory takes, by name."""
    return {
        name: Argument(
            **{**facts, "types": tuple(facts["types"]), "choices": tuple(facts.get("choices", ()))}
        )
        for name, facts in _facts()["arguments"].items()
    }


@cache
def templates() -> frozenset[str]:
    """The names of LLaMA-Factory's chat templates."""
    return frozenset(_facts()["templates"])


@cache
def engine() -> str:
    """Name and version of the engine that the list was taken from."""
    return str(_facts()["engine"])


@cache
def _facts() -> dict[str, Any]:
    text = files("llm_assets.catalog").joinpath("recipe_arguments.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


class WrongValueError(ValueError):
    """A value that LLaMA-Factory would not take, and what it would."""

    def __init__(self, problem: str, valid: str) -> None:
        super().__init__(f"{problem}; {valid}")
        self.problem, self.valid = problem, valid


def typed(name: str, value: Any) -> Any:
    """The value in the type that the argument has: `"1e-4"` becomes a number, `yes` becomes true.

    Raises:
        WrongValueError: LLaMA-Factory would not take it.
    """
    argument = arguments()[name]
    if value is None:
        return _null(argument)
    converted = _converted(argument, value)
    if converted is None:
        raise WrongValueError(
            f"{shown(value)} is not {argument.rule}", f"LLaMA-Factory's default is {argument.default!r}"
        )
    if isinstance(converted, str) and argument.choices and converted not in argument.choices:
        raise WrongValueError(f"{shown(value)} is not taken", _nearest(argument, converted))
    _check_sign(name, converted)
    return converted


def _null(argument: Argument) -> Any:
    if "null" in argument.types:
        return None
    if argument.types == ("boolean",):
        return False  # what LLaMA-Factory makes of it
    raise WrongValueError("it has no value", argument.rule)


def _nearest(argument: Argument, text: str) -> str:
    nearest = did_you_mean(text, argument.choices)
    return f"{nearest} It takes {argument.rule}" if nearest else argument.rule


def _check_sign(name: str, value: Any) -> None:
    if name in _ABOVE_ZERO and isinstance(value, int | float) and value <= 0:
        raise WrongValueError(f"{value!r} is too small", "a number above 0")
    if name in _NOT_BELOW_ZERO and isinstance(value, int | float) and value < 0:
        raise WrongValueError(f"{value!r} is negative", "0 or a number above")


def _converted(argument: Argument, value: Any) -> Any:
    """The value in the first of the argument's types that can hold it, or None."""
    for kind in sorted(argument.types, key=list(_CONVERSIONS).index):
        converted = _CONVERSIONS[kind](value)
        if converted is not None:
            return converted
    return None


def _boolean(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    if isinstance(value, str | int):
        word = str(value).lower()
        return True if word in _TRUE else False if word in _FALSE else None
    return None


def _integer(value: Any) -> int | None:
    number = _number(value)
    if number is None or number != int(number):
        return None
    return int(number)


def _number(value: Any) -> int | float | None:
    if isinstance(value, str):
        try:
            value = (
                float(value) if set(value) - set("+-0123456789") else int(value)
            )  # int() keeps every digit
        except ValueError:
            return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _mapping(value: Any) -> dict[str, Any] | None:
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return value if isinstance(value, dict) else None


def _texts(value: Any) -> list[str] | None:
    return value if isinstance(value, list) and all(isinstance(item, str) for item in value) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _nothing(_: Any) -> None:
    return None


_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "object": _mapping,
    "array": _texts,
    "integer": _integer,
    "number": _number,
    "string": _text,
    "boolean": _boolean,
    "null": _nothing,
}
