"""From an asset of one tenant to the artifact that was materialized last, and back to its parents."""

import dagster as dg

from resources.artifact_store.artifacts import Artifact, ArtifactError
from resources.artifact_store.store import ArtifactStore


class LineageError(Exception):
    """A step was asked for before the one that it builds on, or builds on another one than it says."""


def materialized(
    instance: dg.DagsterInstance, store: ArtifactStore, key: dg.AssetKey, tenant: str | None = None
) -> Artifact:
    """The artifact of the newest materialization of `key` (of that tenant's partition).

    Raises:
        LineageError: There is none, or its artifact is gone from the store.
    """
    what = "/".join(key.path) + (f" of {tenant}" if tenant else "")
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, asset_partitions=[tenant] if tenant else None), limit=1
    ).records
    if not records or not (materialization := records[0].asset_materialization):
        raise LineageError(f"{what} was never materialized. Materialize it first, or run the whole chain.")
    uri = materialization.metadata.get("dagster/uri")
    try:
        return store.get(str(uri.value if uri else None))
    except ArtifactError as error:
        raise LineageError(
            f"{what} was materialized, but its artifact is not in the store: {error} Materialize it again."
        ) from error


def check_bound(adapter: Artifact, base: Artifact) -> None:
    """An adapter fits the base model that it was trained on and no other.

    Raises:
        LineageError: The digests differ; names both.
    """
    bound_to = adapter.attributes.get("base_digest")
    if bound_to != base.digest:
        raise LineageError(
            f"The adapter {adapter.uri} was trained on the base model {bound_to}, but {base.uri} is "
            f"{base.digest}. Materialize the adapter again so that it is trained on this base model."
        )
