"""`llm-assets config`: every setting with its value, where that came from, and what it does."""

import json
from dataclasses import asdict
from typing import Annotated, Literal

import typer
from rich.table import Table

from llm_assets.cli.output import output
from llm_assets.installation.settings import find_settings
from llm_assets.installation.table import schema_text, settings_table

Form = Annotated[
    Literal["table", "json", "schema"],
    typer.Option("--format", help="`schema` is the JSON Schema of installation.yaml."),
]


def config(form: Form = "table") -> None:
    """Prints every setting with its value, where it came from and what it does. Secrets are masked.

    Example: `llm-assets config --format json`
    """
    if form == "schema":
        typer.echo(schema_text(), nl=False)
        return
    found = list(settings_table(find_settings()))
    if form == "json":
        typer.echo(json.dumps([asdict(each) for each in found], indent=2, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("setting", "value", "from", "what it is"):
        table.add_column(column, overflow="fold")
    for each in found:
        style = "dim" if each.origin == "default" else None
        table.add_row(each.name, _text(each.value), each.origin, each.what, style=style)
    output().print(table, markup=False, highlight=False)


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
