"""The cards that were written of a version: found by what their own manifests say that they describe."""

from collections.abc import Iterator

from llm_assets.manifests import CardManifest
from resources.artifact_store.artifacts import Artifact, Line, parse_uri
from resources.artifact_store.store import ArtifactStore


def cards_of(store: ArtifactStore, uri: str, digest: str) -> Iterator[Artifact]:
    """Of the merged model with that address and digest, which may be pruned by now; the newest card first."""
    line, _ = parse_uri(uri)
    for card in store.versions(Line(collection="cards", tenant=line.tenant, name=line.name)):
        described = CardManifest.of(card)
        if (described.model_uri, described.model_digest) == (uri, digest):
            yield card


def card_of(store: ArtifactStore, uri: str, digest: str) -> Artifact | None:
    """The newest one; None where there is none, or it is not in the store any more."""
    return next(cards_of(store, uri, digest), None)
