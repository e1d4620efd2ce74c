"""`llm-assets`: the command line. Here the commands meet; each does its work in a module of its own.

Exit codes: 0 done, 1 the work failed, 2 the command or the catalog is wrong, 130 interrupted.
"""

import signal
import sys
from importlib import import_module
from importlib.metadata import version
from typing import Annotated

import click
import typer
from rich.console import Console
from typer.core import TyperGroup

from llm_assets.cli.interruption import Interrupted, interrupted
from llm_assets.cli.options import FAILED, INTERRUPTED, MISUSED
from resources.errors import InputError, LlmAssetsError
from resources.private_files import keep_private

COMMANDS = {
    "init": "init",
    "up": "stack",
    "down": "stack",
    "status": "stack",
    "links": "links",
    "run": "run",
    "demo": "demo",
    "ask": "ask",
    "promote": "deployments",
    "rollback": "deployments",
    "traffic": "traffic",
    "compare": "compare",
    "history": "deployments",
    "card": "deployments",
    "verify": "signatures",
    "sign": "signatures",
    "trace": "trace",
    "usage": "usage",
    "prune": "prune",
    "check": "catalog",
    "doctor": "doctor",
    "config": "config",
    "logs": "logs",
    "audit": "audit",
    "cache": "cache",
    "engines": "engines",
    "keys": "keys",
    "signing-key": "signing_key",
}
"""Each command's module, in the order of the help; the command is the function of its name, or `app`."""


class Commands(TyperGroup):
    """Imports a command's module when it is asked for: all of them together take over a second."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"llm_assets.cli.{COMMANDS[cmd_name]}")
        if (several := getattr(module, "app", None)) is not None:
            command = typer.main.get_command(several)
        else:
            one = typer.Typer(add_completion=False, rich_markup_mode="markdown")
            one.command(cmd_name)(getattr(module, cmd_name))
            command = typer.main.get_command(one)
        command.name = cmd_name
        return command

    def invoke(self, ctx: click.Context) -> object:
        """typer would end without a word at Ctrl-C."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as fault:
            raise Interrupted from fault


app = typer.Typer(
    name="llm-assets",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"llm-assets {version('llm-assets')}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
]


@app.callback()
def _program(shown: Version = False) -> None:
    """From a company's datasets to live, governed language models."""


def main() -> None:
    """Entry point: what we can explain (LlmAssetsError) is one message, a defect its traceback.

    SIGTERM ends a command as Ctrl-C does, also in a script's background job. That ignores SIGINT, and Dagster
    gives SIGTERM to whoever has SIGINT: nothing short of SIGKILL would end it.
    """
    keep_private()
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    try:
        app(prog_name="llm-assets")
    except (KeyboardInterrupt, Interrupted) as interruption:
        _say(interrupted(str(interruption)))
        sys.exit(INTERRUPTED)
    except LlmAssetsError as error:
        _say(str(error))
        sys.exit(MISUSED if isinstance(error, InputError) else FAILED)


def _say(message: str) -> None:
    Console(stderr=True, soft_wrap=True).print(message, style="red", highlight=False, markup=False)


if __name__ == "__main__":
    main()
