"""The cards that were written of a version: found by what their own manifests say that they describe."""

from collections.abc import Iterator

from resources.artifact_store.artifacts import Artifact, Line, parse_uri
from resources.artifact_store.store import ArtifactStore


def cards_of(store: ArtifactStore, uri: str, digest: str) -> Iterator[Artifact]:
    """Of the merged model with that address and digest, which may be pruned by now; the newest card first."""
    line, _ = parse_uri(uri)
    for card in store.versions(Line(collection="cards", tenant=line.tenant, name=line.name)):
        if (card.attributes.get("model_uri"), card.attributes.get("model_digest")) == (uri, digest):
            yield card


def card_of(store: ArtifactStore, uri: str, digest: str) -> Artifact | None:
    """The newest one; None where there is none, or it is not in the store any more."""
    return next(cards_of(store, uri, digest), None)
