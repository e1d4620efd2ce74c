"""`llm-assets init`: a folder becomes a project, with the demo's catalog to begin from."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from llm_assets.installation.settings import root_of
from resources.shipped_files import DEMO_CATALOG, MONITORING, PROJECT, SYSTEMD

IGNORED = ".gitignore"
IGNORED_LINES = ("/.llm-assets/", "/.env", "/.venv/")

Where = Annotated[Path, typer.Argument(help="The folder; made where it is missing.")]


def init(folder: Where = Path()) -> None:
    """Makes a folder a project: a catalog, how Dagster runs, what Prometheus and systemd read.

    All of it is yours, and nothing that is there is changed. The catalog is the demo's, to begin from.

    Example: `llm-assets init my-models`
    """
    _say(folder, list(lay_out(folder)))


def begin_in_an_empty_folder() -> None:
    """Makes the working directory a project where it holds nothing that is seen, and lies in no project."""
    here = Path.cwd()
    seen = any(not path.name.startswith(".") for path in here.iterdir())
    if not seen and "LLM_ASSETS_ROOT" not in os.environ and root_of(here) is None:
        _say(Path(), list(lay_out(here)))


def lay_out(folder: Path) -> Iterator[tuple[str, bool]]:
    """What a project consists of, and whether it was written; what is there already stays as it is."""
    sources = {
        "catalog": DEMO_CATALOG,
        **{file.name: file for file in sorted(PROJECT.iterdir())},
        "deployments/monitoring": MONITORING,
        "deployments/systemd": SYSTEMD,
    }
    for name, source in sources.items():
        missing = not (folder / name).exists()
        if missing:
            _copy(source, folder / name)
        yield name, missing
    missing = not (folder / IGNORED).exists()
    if missing:
        (folder / IGNORED).write_text("\n".join(IGNORED_LINES) + "\n")
    yield IGNORED, missing


def _copy(source: Path, target: Path) -> None:
    """Never its permissions: what is installed may be read-only."""
    if not source.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        return
    for file in sorted(source.rglob("*")):
        if file.is_file():
            _copy(file, target / file.relative_to(source))


def _say(folder: Path, laid_out: list[tuple[str, bool]]) -> None:
    for name, written in laid_out:
        typer.echo(f"  {'wrote' if written else 'kept '}  {folder / name}")
