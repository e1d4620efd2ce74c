"""The settings as a table: for `llm-assets config`, for the reference page, and as a JSON Schema for editors.

    python -m llm_assets.installation.table

writes the tables of docs/reference/settings.md and docs/reference/installation.schema.json anew.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from llm_assets.datasets.limits import GIB, MIB
from llm_assets.installation.files import INSTALLATION_FILE, masked, read_env_file, read_installation_file
from llm_assets.installation.settings import KEYS, Settings, variable

UNITS = {"gib": GIB, "mib": MIB, "hours": 3600}  # by the end of a setting's name


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting of an installation; `origin` is the variable's place, the file's line, or `default`."""

    name: str
    variable: str
    value: Any
    origin: str
    what: str


def settings_table(settings: Settings) -> Iterator[Setting]:
    """Every setting in the order of the reference, secrets within values masked."""
    file, env_file = read_installation_file(settings.root), read_env_file(settings.root)
    for key, name in KEYS.items():
        origin, named = "default", variable(key)
        if named in os.environ:
            inside = env_file.values.get(named) == os.environ[named]
            origin = Path(env_file.at(named)).name if inside else "environment"
        elif key in file.values:
            origin = Path(file.at(key)).name
        elif key == "root":
            origin = "working directory"
        what = _plain(Settings.model_fields[name].description or "")
        value = _shown(key, getattr(settings, name))
        yield Setting(name=key, variable=named, value=value, origin=origin, what=what)


def schema() -> dict[str, Any]:
    """The JSON Schema of `installation.yaml`."""
    found = Settings.model_json_schema()
    properties = {key: each for key, each in found["properties"].items() if key != "root"}
    for each in properties.values():
        each["description"] = _plain(each["description"])
        for unwanted in ("group", "by_default", "title"):
            each.pop(unwanted, None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": INSTALLATION_FILE,
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def schema_text() -> str:
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def page(before: str) -> str:
    """The reference page with the table below each heading made anew."""
    for group, rows in _groups().items():
        table = "\n".join(["| setting | by default | what it is |", "| --- | --- | --- |", *rows])
        pattern = re.compile(rf"(\n## {re.escape(group)}\n.*?\n)\|.*?\n(?=\n|$)", re.DOTALL)
        found = pattern.search(before)
        assert found, group
        before = f"{before[: found.end(1)]}{table}\n{before[found.end() :]}"
    return before


def _groups() -> dict[str, list[str]]:
    rows: dict[str, list[str]] = {}
    for key, name in KEYS.items():
        field = Settings.model_fields[name]
        extra: Any = field.json_schema_extra
        row = f"| `{variable(key)}` | {extra['by_default'] or _default(field)} | {field.description} |"
        rows.setdefault(extra["group"], []).append(row)
    return rows


def _default(field: FieldInfo) -> str:
    return str(field.default) if field.default else "none"


def _plain(text: str) -> str:
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("`", "")


def _shown(key: str, value: Any) -> Any:
    if unit := UNITS.get(key.rpartition("_")[2]):
        return value // unit if value % unit == 0 else round(value / unit, 2)
    if isinstance(value, str | Path):
        return masked(str(value))
    return list(value) if isinstance(value, tuple) else value


if __name__ == "__main__":
    folder = Path("docs/reference")
    text = (folder / "settings.md").read_text(encoding="utf-8")
    (folder / "settings.md").write_text(page(text), encoding="utf-8")
    (folder / "installation.schema.json").write_text(schema_text(), encoding="utf-8")
