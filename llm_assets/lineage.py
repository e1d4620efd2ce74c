"""From an asset of one tenant to the artifact that was materialized last, and back to its parents.

An event is no authority: whoever can write to Dagster's UI can report a materialization with any metadata.
So the artifact that it names must be of the asset's own line, and have the digest that is the event's data
version.
"""

import dagster as dg

from llm_assets.keys import BASE_MODELS, DATASET, LORA_ADAPTER, MERGED_MODEL, MODEL_CARD
from llm_assets.manifests import Parents
from resources.artifact_store.artifacts import Artifact, ArtifactError, Collection, Line, parse_uri
from resources.artifact_store.store import ArtifactStore
from resources.errors import LlmAssetsError

DATA_VERSION_TAG = "dagster/data_version"
COLLECTIONS: dict[str, Collection] = {
    DATASET: "datasets",
    LORA_ADAPTER: "adapters",
    MERGED_MODEL: "models",
    MODEL_CARD: "cards",
}
REPORTED = "No run of this asset says so: it was reported by hand, and is not used. Materialize it again."


class LineageError(LlmAssetsError):
    """A step was asked for before the one that it builds on, or builds on another one than it says."""


def line_of(key: dg.AssetKey, tenant: str | None) -> Line:
    """Whose artifacts an asset materializes."""
    group, name = key.path
    if group == BASE_MODELS:
        return Line(collection="base_models", tenant=None, name=name)
    return Line(collection=COLLECTIONS[name], tenant=tenant, name=group)


def newest_materialization(
    instance: dg.DagsterInstance, key: dg.AssetKey, tenant: str | None
) -> dg.EventLogRecord | None:
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, asset_partitions=[tenant] if tenant else None), limit=1
    ).records
    return records[0] if records else None


def _of_run(
    instance: dg.DagsterInstance, run_id: str, key: dg.AssetKey, tenant: str | None
) -> dg.AssetMaterialization | None:
    """What a run made of an asset: steps of several runs of one line may come in between each other."""
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
    for record in reversed(records):
        event = record.event_log_entry.asset_materialization
        if event and (event.asset_key, event.partition) == (key, tenant):
            return event
    return None


def names_its_own(event: dg.AssetMaterialization, tenant: str | None) -> bool:
    """Whether the artifact that an event names is of its asset's own line; such an event may be believed."""
    try:
        line, _ = parse_uri(_address(event))
    except ArtifactError:
        return False
    return line == line_of(event.asset_key, tenant)


def materialized(
    instance: dg.DagsterInstance,
    store: ArtifactStore,
    key: dg.AssetKey,
    tenant: str | None = None,
    run_id: str | None = None,
) -> Artifact:
    """The artifact of the newest materialization of `key` (of that tenant's partition).

    Args:
        run_id: The run that asks: it goes on with what it made itself, whatever another run made since.

    Raises:
        LineageError: There is none, its artifact is gone from the store, or is not the asset's own.
    """
    what = "/".join(key.path) + (f" of {tenant}" if tenant else "")
    record = newest_materialization(instance, key, tenant)
    event = record.asset_materialization if record else None
    if record and run_id and record.run_id != run_id:
        event = _of_run(instance, run_id, key, tenant) or event
    if event is None:
        raise LineageError(f"{what} was never materialized. Materialize it first, or run the whole chain.")
    if not names_its_own(event, tenant):
        raise LineageError(
            f"The newest materialization of {what} names {_address(event)}, which is not of "
            f"{line_of(key, tenant)}. {REPORTED}"
        )
    try:
        artifact = store.get(_address(event))
    except ArtifactError as error:
        raise LineageError(
            f"{what} was materialized, but its artifact is not in the store: {error} Materialize it again."
        ) from error
    version = (event.tags or {}).get(DATA_VERSION_TAG)
    if version != artifact.digest:
        raise LineageError(
            f"The newest materialization of {what} has the data version {version}, but {artifact.uri}, "
            f"which it names, has the digest {artifact.digest}. {REPORTED}"
        )
    return artifact


def materialized_for(
    context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext,
    store: ArtifactStore,
    key: dg.AssetKey,
    tenant: str | None = None,
) -> Artifact:
    """What a step goes on with: as `materialized`, of its own run if that has made it."""
    return materialized(context.instance, store, key, tenant, context.run.run_id)


def _address(event: dg.AssetMaterialization) -> str:
    uri = event.metadata.get("dagster/uri")
    return str(uri.value if uri else None)


def check_bound(adapter: Artifact, base: Artifact) -> None:
    """An adapter fits the base model that it was trained on and no other.

    Raises:
        LineageError: The digests differ; names both.
    """
    bound_to = Parents.of(adapter).base_digest
    if bound_to != base.digest:
        raise LineageError(
            f"The adapter {adapter.uri} was trained on the base model {bound_to}, but {base.uri} is "
            f"{base.digest}. Materialize the adapter again so that it is trained on this base model."
        )
