"""What every command that shows something writes into a file: the same, however narrow the terminal is."""

import json
import re

from typer.testing import CliRunner

from llm_assets.cli.main import app

OF_MODEL = ("support_bot", "-t", "team-a")
SHOWS: dict[str, tuple[str, ...]] = {
    "status": (),
    "traffic": OF_MODEL,
    "compare": OF_MODEL,
    "history": OF_MODEL,
    "card": OF_MODEL,
    "verify": OF_MODEL,
    "usage": (),
    "prune": ("--dry-run",),
    "check": (),
    "doctor": (),
    "logs": (),
    "audit verify": (),
    "cache status": (),
    "engines status": (),
    "keys list": (),
    "signing-key list": (),
}
NARROW, WIDE = "40", "400"


def redirected_output_is_whole(digest: str) -> None:
    """Of a project whose environment this process has; `digest` is that of the version in production."""
    _invoked(
        "keys", "create", "-t", "team-a", "-n", "a-name-longer-than-a-narrow-terminal-is-wide", columns=NARROW
    )
    printed = {name: _printed(name, NARROW) for name in SHOWS}
    for name, text in printed.items():
        assert _without_figures(text) == _without_figures(_printed(name, WIDE)), f"{name} cuts or folds"
    assert digest in printed["card"]
    page = _invoked("card", *OF_MODEL, "--format", "html", columns=NARROW)
    assert page.startswith("<!doctype html>")
    assert f"<code>{digest}</code>" in page
    card = json.loads(_invoked("card", *OF_MODEL, "--format", "json", columns=NARROW))
    assert card["lineage"]["merged_model"] == digest


def _printed(name: str, columns: str) -> str:
    return _invoked(*name.split(), *SHOWS[name], columns=columns)


def _invoked(*arguments: str, columns: str) -> str:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": columns})
    assert result.exception is None or result.exit_code in (0, 1), result.output
    assert result.stdout, result.output
    return result.stdout


def _without_figures(text: str) -> str:
    """Memory, times and the width of columns change from one look to the next; lines do not."""
    return re.sub(r" +", " ", re.sub(r"\d+", "0", text))
