"""`llm-assets prune`: deletes artifacts that nobody needs any more, and says why the others stay."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from llm_assets.catalog.loading import Catalog
from llm_assets.cli.installation import installation
from llm_assets.cli.output import output
from llm_assets.installation.profiles import Profile
from llm_assets.retention import Decision, Keeping, decide, published_at
from resources.artifact_store.artifacts import SHARED, Line
from resources.mlflow.registry import MlflowRegistry
from resources.seams.serving import ModelServing, ServingError

GB = 1e9

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would go and what stays.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def prune(dry_run: DryRun = False, yes: Yes = False) -> None:
    """Deletes artifacts that no alias, no deployment and no retention rule needs.

    What is needed keeps what it was made from. How long the rest is kept, each model's `retention` says.

    Example: `llm-assets prune --dry-run`
    """
    here, console = installation(), output()
    store = here.profile.store
    decisions = _decisions(here.catalog, here.profile)
    going = [each for each in decisions if each.reason is None]
    _show(console, decisions)
    if dry_run:
        return
    for line in store.lines():
        for folder in store.clear_abandoned(store.unfinished(line)):
            console.print(f"Deleted {folder}, which a killed publication left.", highlight=False)
    if not going:
        return
    if not yes and not typer.confirm(f"Delete {len(going)} artifacts?"):
        raise typer.Exit(1)
    for each in going:
        store.delete(each.artifact)
    console.print(f"Deleted {len(going)} artifacts.", highlight=False)


def _decisions(catalog: Catalog, profile: Profile) -> tuple[Decision, ...]:
    profile.mlflow.ensure_ready()
    lines = list(profile.store.lines())
    needed = dict(_aliased(lines, profile.registry)) | dict(_deployed(profile.serving))
    artifacts = [artifact for line in lines for artifact in profile.store.versions(line)]
    keeping = {line: rule for line in lines if (rule := _keeping(catalog, line))}
    return decide(artifacts, needed=needed, keeping=keeping, now=datetime.now(UTC))


def _aliased(lines: list[Line], registry: MlflowRegistry) -> Iterator[tuple[str, str]]:
    for line in lines:
        if line.collection == "models" and line.tenant:
            for version in registry.versions(line.tenant, line.name):
                if version.aliases:
                    yield version.source, f"is {' and '.join(version.aliases)}"


def _deployed(serving: ModelServing) -> Iterator[tuple[str, str]]:
    for state in serving.states():
        if state.status == "unreadable":  # it may serve any version
            raise ServingError(state.why)
        line = Line(collection="models", tenant=state.tenant, name=state.model)
        for backend in state.backends:
            yield f"artifact://{line}/{backend.version}", f"is deployed ({backend.status})"


def _keeping(catalog: Catalog, line: Line) -> Keeping | None:
    """A base model is kept as long as the longest rule among the models that start from it says."""
    if line.collection in SHARED:
        rules = [model.retention for model in catalog.models.values() if model.base_model == line.name]
    else:
        tenant = catalog.tenants.get(line.tenant or "")
        used = tenant is not None and line.name in tenant.models
        rules = [catalog.models[line.name].retention] if used else []
    if not rules:
        return None
    return Keeping(versions=max(rule.versions for rule in rules), days=max(rule.days for rule in rules))


def _show(console: Console, decisions: tuple[Decision, ...]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("artifact", "published", "GB", "why it stays"):
        table.add_column(column, justify="right" if column == "GB" else "left", overflow="fold")
    for each in decisions:
        artifact = each.artifact
        published = published_at(artifact).strftime("%Y-%m-%d")
        size = f"{artifact.size_bytes / GB:.2f}"
        table.add_row(artifact.key, published, size, each.reason or "[yellow]goes[/]")
    console.print(table)
    size_bytes = sum(each.artifact.size_bytes for each in decisions if each.reason is None)
    count = sum(each.reason is None for each in decisions)
    console.print(f"{count} artifacts go, {size_bytes / GB:.2f} GB.", highlight=False)
