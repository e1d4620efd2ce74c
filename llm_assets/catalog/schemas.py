"""The JSON Schemas by which editors complete and check a catalog's files.

    python -m llm_assets.catalog.schemas

writes `catalog/schemas/*.schema.json` anew from the pydantic models and LLaMA-Factory's arguments. An
editor finds them by a file's first line, `# yaml-language-server: $schema=../schemas/model.schema.json`.
They cover one file at a time; what `llm-assets check` sees across files, they do not.
"""

import json
import sys
from pathlib import Path
from typing import Any

from llm_assets.catalog.arguments import Argument, arguments, engine, templates
from llm_assets.catalog.base_models import BaseModelEntry
from llm_assets.catalog.combinations import QUANTIZATION_BITS
from llm_assets.catalog.files import Entry
from llm_assets.catalog.models import ModelEntry
from llm_assets.catalog.platform_keys import PLATFORM_KEYS
from llm_assets.catalog.recipes import FINETUNING_TYPES, STAGES
from llm_assets.catalog.tenants import TenantEntry
from resources.vllm.program import TOOL_CALL_PARSERS

_SUPPORTED: dict[str, list[Any]] = {
    "stage": list(STAGES),
    "finetuning_type": list(FINETUNING_TYPES),
    "quantization_bit": [*QUANTIZATION_BITS, None],
}


def schemas() -> dict[str, dict[str, Any]]:
    """Each schema by its file's name."""
    base_model, model, tenant = _schema(BaseModelEntry), _schema(ModelEntry), _schema(TenantEntry)
    base_model["properties"]["template"]["enum"] = sorted(templates())
    parsers = {"enum": [*sorted(TOOL_CALL_PARSERS), None]}
    model["$defs"]["ServingSettings"]["properties"]["tool_call_parser"] |= parsers
    model["properties"]["recipe"] = _recipe() | {"description": model["properties"]["recipe"]["description"]}
    return {
        "base_model.schema.json": base_model,
        "model.schema.json": model,
        "tenant.schema.json": tenant,
    }


def _schema(entry: type[Entry]) -> dict[str, Any]:
    """The schema of a file, without the name, which is the file's own."""
    schema = entry.model_json_schema()
    del schema["properties"]["name"]
    schema["required"].remove("name")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _recipe() -> dict[str, Any]:
    keys = {name: _key(name, each) for name, each in arguments().items() if name not in PLATFORM_KEYS}
    return {
        "type": "object",
        "title": f"Recipe ({engine()})",
        "properties": keys,
        "additionalProperties": False,
    }


def _key(name: str, argument: Argument) -> dict[str, Any]:
    schema: dict[str, Any] = {"description": argument.description, "default": argument.default}
    if name in _SUPPORTED:
        return schema | {"enum": _SUPPORTED[name]}
    alternatives = [_alternative(kind, argument) for kind in argument.types]
    return schema | (alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives})


def _alternative(kind: str, argument: Argument) -> dict[str, Any]:
    if kind == "string" and argument.choices:
        return {"enum": list(argument.choices)}
    return {"type": kind} | ({"items": {"type": "string"}} if kind == "array" else {})


def as_text(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def main(folder: Path) -> None:
    for name, schema in schemas().items():
        (folder / name).write_text(as_text(schema), encoding="utf-8")


if __name__ == "__main__":
    main(Path(*sys.argv[1:2] or ["catalog/schemas"]))
