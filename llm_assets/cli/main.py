"""`llm-assets`: the command line. Here the commands meet; each does its work in a module of its own.

Exit codes: 0 done, 1 the work failed, 2 the command or the catalog is wrong, 130 interrupted.
"""

import typer

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
from llm_assets.cli.running import run as run_to_its_end

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
    """All commands; `llm-assets` itself begins in `entry.py`."""
    run_to_its_end(app)


if __name__ == "__main__":
    main()
