"""The console of the Dagster UI, and the command that serves it."""

import sys
from pathlib import Path

from resources.consoles.consoles import Console

NAME = "dagster"
TITLE = "the Dagster UI"
LINEAGE_PAGE = "/asset-groups"
APP = Path(__file__).with_name("app.py")


def dagster_console(*, port: int, folder: Path, tokens: Path) -> Console:
    return Console(name=NAME, title=TITLE, port=port, folder=folder, tokens=tokens)


def command(console: Console, workspace: Path) -> tuple[str, ...]:
    """With DAGSTER_HOME in the environment, until it is ended."""
    return (
        *(sys.executable, "-P", str(APP)),  # -P: what lies beside it is no top-level module
        *("--workspace", str(workspace), "--port", str(console.port)),
        *("--console", str(console.folder), "--tokens", str(console.tokens)),
    )
