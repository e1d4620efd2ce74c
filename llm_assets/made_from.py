"""From a merged model back to everything that it was made from, by the addresses in the manifests alone."""

from collections.abc import Callable
from dataclasses import dataclass

from resources.artifact_store.artifacts import Artifact


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """A merged model and everything that it was made from."""

    merged: Artifact
    adapter: Artifact
    dataset: Artifact
    base: Artifact


def lineage_of(published: Callable[[str], Artifact], merged: Artifact) -> Lineage:
    """Args:
    published: Gives the artifact at an `artifact://…` address, such as `ArtifactStore.get`.
    """
    return Lineage(
        merged=merged,
        adapter=published(merged.attributes["adapter_uri"]),
        dataset=published(merged.attributes["dataset_uri"]),
        base=published(merged.attributes["base_uri"]),
    )
