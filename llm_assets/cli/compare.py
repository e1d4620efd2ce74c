"""`llm-assets compare`: two versions side by side, to decide which one serves."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from llm_assets.cli.options import AsJson, Model, Tenant, UsageError
from llm_assets.cli.output import output
from llm_assets.cli.versions import by_alias, by_name, with_registry
from llm_assets.comparison import compare_versions, comparison_text
from resources.mlflow.registry import RegisteredVersion

Before = Annotated[
    str | None, typer.Argument(help="A label or number; production if left out, or what was before it.")
]
After = Annotated[str | None, typer.Argument(help="A label or number; the candidate if left out.")]


def compare(
    model: Model, tenant: Tenant, before: Before = None, after: After = None, as_json: AsJson = False
) -> None:
    """Shows what differs between two versions: results, answers, data, recipe, base, engines, card.

    Example: `llm-assets compare support_bot --tenant team-a 2 3`
    """
    here, registry = with_registry(model, tenant)
    first, second = _chosen(registry.versions(tenant, model), before, after)
    comparison = compare_versions(here.profile.store, first, second)
    if as_json:
        typer.echo(json.dumps(asdict(comparison), indent=2, ensure_ascii=False))
    else:
        console = output()
        console.print(comparison_text(comparison, expand=console.is_terminal))


def _chosen(
    versions: Sequence[RegisteredVersion], before: str | None, after: str | None
) -> tuple[RegisteredVersion, RegisteredVersion]:
    """Production and candidate unless others are named; if they are one, what was before production."""
    first = by_alias(versions, "production") if before is None else by_name(versions, before)
    second = by_alias(versions, "candidate") if after is None else by_name(versions, after)
    if before is None and first.number == second.number:
        first = by_alias(versions, "previous")
    if first.number == second.number:
        raise UsageError(f"Version {first.number} would be compared with itself; name two versions.")
    return first, second
