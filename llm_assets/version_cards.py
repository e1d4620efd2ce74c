"""The cards that were written of a version: found by what their own manifests say that they describe."""

from collections.abc import Iterator

from resources.artifact_store.artifacts import Artifact, Line
from resources.artifact_store.store import ArtifactStore


def cards_of(store: ArtifactStore, merged: Artifact) -> Iterator[Artifact]:
    """Of a merged model, the newest first."""
    described = (merged.uri, merged.digest)
    for card in store.versions(Line(collection="cards", tenant=merged.line.tenant, name=merged.line.name)):
        if (card.attributes.get("model_uri"), card.attributes.get("model_digest")) == described:
            yield card


def card_of(store: ArtifactStore, merged: Artifact) -> Artifact | None:
    """The newest one; None where there is none, or it is not in the store any more."""
    return next(cards_of(store, merged), None)
