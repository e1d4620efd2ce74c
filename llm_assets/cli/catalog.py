"""`llm-assets check`: is everything that people wrote right?"""

import json

import typer
from rich.console import Console

from llm_assets.catalog.loading import load_catalog
from llm_assets.catalog.mistakes import CatalogError
from llm_assets.catalog.tenants import without_effect
from llm_assets.cli.options import AsJson
from llm_assets.code_location import check_location
from llm_assets.settings import find_settings


def check(as_json: AsJson = False) -> None:
    """Checks the whole catalog and lists every mistake with its file, line and field.

    Builds the definitions as Dagster will. Nothing is run or downloaded. Exit code 2 when there is a mistake.

    Example: `llm-assets check`
    """
    settings = find_settings()
    try:
        catalog = load_catalog(settings.catalog, landing_zones=True)
        check_location(settings, catalog)
    except CatalogError as error:
        if not as_json:
            raise
        typer.echo(json.dumps({"mistakes": [vars(mistake) for mistake in error.mistakes]}, indent=2))
        raise typer.Exit(2) from error
    counted = {
        "base_models": len(catalog.base_models),
        "models": len(catalog.models),
        "tenants": len(catalog.tenants),
        "experiments": len(catalog.experiments),
    }
    note = without_effect(catalog.tenants.values())
    if as_json:
        typer.echo(json.dumps({"mistakes": [], "notes": [note] if note else [], **counted}, indent=2))
        return
    listed = ", ".join(f"{number} {what.replace('_', ' ')}" for what, number in counted.items())
    Console().print(f"[green]✓[/] {settings.catalog}: {listed}", highlight=False, soft_wrap=True)
    if note:
        Console().print(note, style="dim", highlight=False, soft_wrap=True)
