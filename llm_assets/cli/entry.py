"""Where `llm-assets` begins. Commands that answer at once are imported alone, without Dagster and MLflow."""

import sys
from collections.abc import Callable, Mapping

from llm_assets.cli.running import run

HELP = ["-h", "--help"]


def main() -> None:
    """The command line."""
    alone = ALONE.get(sys.argv[1]) if len(sys.argv) > 1 else None
    if alone is not None:
        run(alone)
        return
    from llm_assets.cli.main import main as all_commands

    all_commands()


def _trace() -> None:
    import typer

    from llm_assets.cli.trace import trace

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(trace)
    app(args=sys.argv[2:], prog_name="llm-assets trace", help_option_names=HELP)


def _audit() -> None:
    from llm_assets.cli.audit import app

    app(args=sys.argv[2:], prog_name="llm-assets audit", help_option_names=HELP)


ALONE: Mapping[str, Callable[[], None]] = {"trace": _trace, "audit": _audit}

if __name__ == "__main__":
    main()
