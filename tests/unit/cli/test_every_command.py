"""What holds of every command: each argument is explained, and nothing that is redirected is cut."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest
import typer

from llm_assets.cli.main import app
from tests.conftest import ROOT

MODULES = sorted((ROOT / "llm_assets" / "cli").glob("*.py"))


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by its whole name."""
    yield from _below("llm-assets", typer.main.get_command(app))


def _below(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield name, command
        return
    context = click.Context(command, info_name=name)
    for each in command.list_commands(context):
        found = command.get_command(context, each)
        assert found is not None
        yield from _below(f"{name} {each}", found)


COMMANDS = dict(commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_argument_and_option_says_what_it_is(name: str) -> None:
    silent = [each.name for each in COMMANDS[name].params if not getattr(each, "help", None)]
    assert silent == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_does_and_has_an_example(name: str) -> None:
    told = COMMANDS[name].help or ""
    assert told
    assert f"Example: `{name}" in told


def test_the_help_shows_what_an_argument_is() -> None:
    assert "A model of the catalog." in llm_assets("run", "--help")


def test_the_version_is_that_of_the_package() -> None:
    assert llm_assets("--version") == f"llm-assets {version('llm-assets')}\n"


def llm_assets(*arguments: str) -> str:
    command = [sys.executable, "-m", "llm_assets.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_what_a_command_prints_is_whole_where_it_is_redirected(module: Path) -> None:
    """rich cuts at 80 columns where there is no terminal: consoles are made by `output`, or do not wrap."""
    if module.name in ("output.py", "terminal.py"):
        return
    made = [
        node
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Console"
    ]
    for call in made:
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert options.get("soft_wrap") == "True", f"{module.name}:{call.lineno}"
