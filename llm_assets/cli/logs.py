"""`llm-assets logs`: where each part of the installation writes its log, and what stands in it."""

import os
from typing import Annotated

import typer
from rich.table import Table

from llm_assets.catalog.mistakes import did_you_mean, one_of
from llm_assets.cli.options import UsageError
from llm_assets.cli.output import output
from llm_assets.installation.settings import find_settings
from llm_assets.parts import PartLog
from llm_assets.parts import logs as every_log


def _parts(incomplete: str) -> list[str]:
    return [log.part for log in every_log(find_settings()) if log.part.startswith(incomplete)]


Part = Annotated[
    str | None,
    typer.Argument(help="Whose log is printed; all logs are listed if left out.", autocompletion=_parts),
]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on printing what is written.")]
Lines = Annotated[int | None, typer.Option("--lines", "-n", min=0, help="Only so many of the last lines.")]


def logs(part: Part = None, follow: Follow = False, lines: Lines = None) -> None:
    """Lists the logs and their files, or prints one: of the gateway, MLflow, the UI, a vLLM, a run's engine.

    Example: `llm-assets logs mlflow`, or `llm-assets logs vllm --follow`
    """
    found = {log.part: log for log in every_log(find_settings())}
    if part is None:
        _list(list(found.values()))
    elif part in found:
        first = "+1" if lines is None else str(lines)
        name = [] if not follow else ["-F"]  # by name: a log that is made anew is followed too
        os.execvp("tail", ["tail", "-n", first, *name, "--", str(found[part].path)])  # noqa: S606
    else:
        raise UsageError(f"There is no log {part!r}: {did_you_mean(part, found, otherwise=one_of(found))}")


def _list(found: list[PartLog]) -> None:
    console = output()
    if not found:
        console.print("There are no logs yet: nothing was started.")
        return
    table = Table("Part", "File", box=None, pad_edge=False)
    for log in found:
        table.add_row(log.part, str(log.path))
    console.print(table)
