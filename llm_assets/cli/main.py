"""`llm-assets`: the command line. Here the commands meet; each does its work in a module of its own.

Exit codes: 0 done, 1 the work failed, 2 the command or the catalog is wrong, 130 interrupted.
"""

import sys

import typer
from rich.console import Console

from llm_assets.cli import (
    ask,
    audit,
    cache,
    catalog,
    compare,
    demo,
    deployments,
    doctor,
    engines,
    keys,
    prune,
    run,
    signatures,
    stack,
    trace,
    traffic,
    usage,
)
from llm_assets.cli.options import FAILED, INTERRUPTED, MISUSED

app = typer.Typer(
    name="llm-assets",
    help="From a company's datasets to live, governed language models.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up")(stack.up)
app.command("down")(stack.down)
app.command("status")(stack.status)
app.command("run")(run.run)
app.command("demo", hidden=True)(demo.demo)
app.command("ask")(ask.ask)
app.command("promote")(deployments.promote)
app.command("rollback")(deployments.rollback)
app.command("traffic")(traffic.traffic)
app.command("compare")(compare.compare)
app.command("history")(deployments.history)
app.command("card")(deployments.card)
app.command("verify")(signatures.verify)
app.command("sign")(signatures.sign)
app.command("trace")(trace.trace)
app.command("usage")(usage.usage)
app.command("prune")(prune.prune)
app.command("check")(catalog.check)
app.command("doctor")(doctor.doctor)
app.add_typer(audit.app, name="audit")
app.add_typer(cache.app, name="cache")
app.add_typer(engines.app, name="engines")
app.add_typer(keys.app, name="keys")


def main() -> None:
    """Entry point: every error that we know how to explain is one message, not a traceback."""
    try:
        app()
    except KeyboardInterrupt:
        _say("Interrupted.")
        sys.exit(INTERRUPTED)
    except Exception as error:
        if not _explained(error):
            raise
        _say(str(error))
        sys.exit(
            MISUSED if type(error).__name__ in ("CatalogError", "SettingsError", "UsageError") else FAILED
        )


def _explained(error: Exception) -> bool:
    """Our own error classes say what and the remedy; anything else is a defect and shows its traceback."""
    return type(error).__module__.split(".")[0] in ("llm_assets", "resources")


def _say(message: str) -> None:
    Console(stderr=True, soft_wrap=True).print(message, style="red", highlight=False, markup=False)


if __name__ == "__main__":
    main()
