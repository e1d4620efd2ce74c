"""Writes down what LLaMA-Factory takes in a recipe: each argument's types and choices, and the templates.

Runs in the train engine and needs nothing but the engine:

    python -m llm_assets.workers.recipe_arguments llm_assets/catalog/recipe_arguments.json

The catalog checks recipes against that file, so it never imports an engine. Not covered: which
combinations of arguments LLaMA-Factory refuses (it says so itself when a training starts).
"""

import dataclasses
import enum
import importlib.metadata
import json
import pathlib
import sys
import types
import typing
from collections.abc import Callable
from typing import Any

# Typed `str | bool` without choices in transformers; the values are in its documentation.
_DOCUMENTED_CHOICES = {"include_num_input_tokens_seen": ["all", "no", "non_padding"]}

_JSON_TYPES: dict[Any, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    dict: "object",
    list: "array",
    type(None): "null",
    pathlib.Path: "string",
}


def describe() -> dict[str, Any]:
    """The arguments of `llamafactory-cli train` by name, and the names of its templates, both sorted."""
    from llamafactory.data import TEMPLATES
    from llamafactory.hparams import parser

    arguments = {}
    for group in parser._TRAIN_ARGS:
        hints = typing.get_type_hints(group)
        for field in dataclasses.fields(group):
            if field.init:
                arguments[field.name] = _argument(group, field, hints[field.name])
    return {
        "engine": f"llamafactory {importlib.metadata.version('llamafactory')}",
        "arguments": dict(sorted(arguments.items())),
        "templates": sorted(TEMPLATES),
    }


def _argument(group: type, field: "dataclasses.Field[Any]", hint: Any) -> dict[str, Any]:
    members = [hint]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        members = list(typing.get_args(hint))
    choices = _DOCUMENTED_CHOICES.get(field.name, _choices(members))
    json_types = {_json_type(member) for member in members} - {""}
    if (
        json_types == {"string"} | (json_types & {"null"})
        and not choices
        and _takes_a_list(group, field.name)
    ):
        json_types.add("array")
    description = " ".join(str(field.metadata.get("help", "")).split())
    argument = {"types": sorted(json_types), "default": _default(field), "description": description}
    return argument | ({"choices": choices} if choices else {})


def _json_type(member: Any) -> str:
    """The JSON type of one member of a type hint; empty for what a YAML file cannot say."""
    if typing.get_origin(member) is typing.Literal:
        return _JSON_TYPES[type(typing.get_args(member)[0])]
    if isinstance(member, type) and issubclass(member, enum.Enum):
        return "string"
    return _JSON_TYPES.get(typing.get_origin(member) or member, "")


def _choices(members: list[Any]) -> list[str]:
    for member in members:
        if typing.get_origin(member) is typing.Literal:
            return [choice for choice in typing.get_args(member) if isinstance(choice, str)]
        if isinstance(member, type) and issubclass(member, enum.Enum):
            return sorted(str(choice.value) for choice in member)
    return []


def _takes_a_list(group: type, name: str) -> bool:
    """Whether this text may be a list too: LLaMA-Factory splits it at commas and leaves a list alone."""
    build: Callable[..., Any] = group
    required = {} if name == "model_name_or_path" else {"model_name_or_path": "base"}
    settings = required if group.__name__ == "ModelArguments" else {}
    if group.__name__ not in ("ModelArguments", "DataArguments", "FinetuningArguments"):
        return False
    try:
        from_text = getattr(build(**settings, **{name: "a,b"}), name)
        from_list = getattr(build(**settings, **{name: ["a", "b"]}), name)
    except (AttributeError, AssertionError, OSError, ValueError):
        return False
    return bool(from_text == from_list == ["a", "b"])


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    value = None if field.default is dataclasses.MISSING else field.default
    return value.value if isinstance(value, enum.Enum) else value


def main() -> None:
    text = json.dumps(describe(), indent=1, ensure_ascii=False)
    pathlib.Path(sys.argv[1]).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
