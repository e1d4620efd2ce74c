"""`llm-assets trace`: from the id on one answer to the dataset and the base model that it came from."""

import json
from contextlib import closing
from functools import partial
from typing import Annotated

import typer
from rich.console import Console

from llm_assets.audit_log import sealer_of
from llm_assets.cli.options import AsJson, UsageError
from llm_assets.installation.settings import Settings, find_settings
from llm_assets.made_from import lineage_of
from llm_assets.operator import operator
from resources.artifact_store.artifacts import Artifact
from resources.artifact_store.manifests import published
from resources.audit.sealing import Sealer
from resources.errors import LlmAssetsError
from resources.object_stores.opening import open_object_store

RequestId = Annotated[str, typer.Argument(help="The x-request-id of an answer.")]
By = Annotated[str | None, typer.Option("--by", help="For whom; kept in the log beside the OS user.")]


def trace(request: RequestId, by: By = None, as_json: AsJson = False) -> None:
    """Walks from a request to its deployment, version, adapter, dataset and base model.

    Example: `llm-assets trace 7d0f3c52-6a0b-4c55-9d6e-0c5d4f0e8a11`
    """
    settings = find_settings()
    with closing(sealer_of(settings)) as sealer:
        tenant, record = _record(sealer, request)
        sealer.record_event(tenant, "access", command="trace", by=operator(by), asked={"request": request})
    steps = {"request": _asked(record), "version": _version(settings, record)}
    typer.echo(json.dumps(steps, indent=2)) if as_json else _show(steps)


def _record(sealer: Sealer, request: str) -> tuple[str, dict[str, object]]:
    found = sealer.index.find(request)
    if found is None:  # just sealed, or the index is being made anew
        sealer.index.catch_up()
        found = sealer.index.find(request)
    if found is None:
        raise UsageError(
            f"No audit record has the id {request!r}. A record is sealed within a second of the answer's "
            "end; what is older than its retention was deleted."
        )
    return found


def _asked(record: dict[str, object]) -> dict[str, object]:
    names = ("id", "tenant", "started_at", "ended_at", "key", "model", "requested", "outcome", "status")
    served = ("deployment", "version", "digest", "served_digest", "risk_class", "hash")
    return {name: record.get(name) for name in (*names, *served)}


def _version(settings: Settings, record: dict[str, object]) -> dict[str, object]:
    """What the version was made from, by the manifests in the artifact store."""
    if not record.get("version"):
        return {"fault": f"No version answered: {record.get('reason') or record.get('outcome')}."}
    get = partial(published, open_object_store(settings.store_url))
    source = f"artifact://models/{record['tenant']}/{record['model']}/{record['version']}"
    try:
        lineage = lineage_of(get, get(source))
    except LlmAssetsError as error:
        return {"uri": source, "fault": str(error)}
    made_from = {"merged": lineage.merged, "adapter": lineage.adapter}
    made_from |= {"dataset": lineage.dataset, "base": lineage.base}
    return {name: _named(artifact) for name, artifact in made_from.items()} | {
        "as_served": lineage.merged.digest == record.get("digest")
    }


def _named(artifact: Artifact) -> dict[str, str]:
    return {"uri": artifact.uri, "digest": artifact.digest}


def _show(steps: dict[str, dict[str, object]]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for name, value in steps["request"].items():
        if value is not None:
            console.print(f"{name:<14} {value}", markup=False)
    for name, value in steps["version"].items():
        text = f"{value['uri']}  {value['digest']}" if isinstance(value, dict) else value
        console.print(f"{name:<14} {text}", markup=False, style="red" if name == "fault" else None)
