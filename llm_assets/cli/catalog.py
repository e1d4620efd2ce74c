"""`llm-assets check`: is everything that people wrote right?"""

import json
from typing import Annotated

import typer
from rich.markup import escape

from llm_assets.catalog.limits import store_mistakes
from llm_assets.catalog.loading import Catalog, load_catalog
from llm_assets.catalog.mistakes import CatalogError
from llm_assets.catalog.tenants import without_effect
from llm_assets.cli.options import AsJson
from llm_assets.cli.output import output
from llm_assets.code_location import check_location
from llm_assets.dataset_checks import DatasetChecks, check_datasets
from llm_assets.installation.settings import find_settings

Fast = Annotated[bool, typer.Option("--fast", help="Leaves the rows of the datasets unread.")]

SHOWN_LINES = 5


def check(as_json: AsJson = False, fast: Fast = False) -> None:
    """Checks the whole catalog and every dataset, and lists each mistake with its file, line and field.

    Builds the definitions as Dagster will, and reads the first rows of each dataset's files. Nothing is run
    or downloaded. Exit code 2 when there is a mistake.

    Example: `llm-assets check`
    """
    settings = find_settings()
    try:
        catalog = load_catalog(settings.catalog, landing_zones=True)
        check_location(settings, catalog)
        wrong = store_mistakes(catalog.folder, catalog.models.values(), settings.store_url)
        checks = DatasetChecks() if fast else check_datasets(settings, catalog)
        warnings = [*checks.warnings, *_not_looked_into(checks)]
        if not as_json:
            for warning in warnings:
                _print(f"[yellow]![/] {escape(warning)}")
        if wrong or checks.mistakes:
            raise CatalogError(settings.catalog, [*wrong, *checks.mistakes])
    except CatalogError as error:
        if not as_json:
            raise
        typer.echo(json.dumps({"mistakes": [vars(mistake) for mistake in error.mistakes]}, indent=2))
        raise typer.Exit(2) from error
    counted = _counted(catalog) | ({} if fast else {"datasets": checks.datasets})
    note = without_effect(catalog.tenants.values())
    if as_json:
        said = {"mistakes": [], "warnings": warnings, "notes": [note] if note else []}
        typer.echo(json.dumps({**said, **counted}, indent=2))
        return
    listed = ", ".join(f"{number} {what.replace('_', ' ')}" for what, number in counted.items())
    _print(f"[green]✓[/] {escape(str(settings.catalog))}: {listed}")
    if note:
        _print(f"[dim]{escape(note)}[/]")


def _counted(catalog: Catalog) -> dict[str, int]:
    return {
        "base_models": len(catalog.base_models),
        "models": len(catalog.models),
        "tenants": len(catalog.tenants),
        "experiments": len(catalog.experiments),
    }


def _not_looked_into(checks: DatasetChecks) -> list[str]:
    said = []
    if checks.waiting:
        said.append(
            f"no data yet in datasets/: {_some(checks.waiting)}; a model is trained once its files are there"
        )
    if checks.unseen:
        said.append(f"no time to look into datasets/: {_some(checks.unseen)}; check again to go on with them")
    return said


def _some(lines: list[str]) -> str:
    more = f", … ({len(lines)} in all)" if len(lines) > SHOWN_LINES else ""
    return ", ".join(lines[:SHOWN_LINES]) + more


def _print(text: str) -> None:
    output().print(text)
