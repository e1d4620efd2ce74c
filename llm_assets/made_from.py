"""From a merged model back to everything that it was made from, by the addresses in the manifests alone.

What a manifest says of a parent is believed only where it can be true: the parent is of the same tenant and
model (a base model is everybody's), and has the digest that the manifest gives.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from llm_assets.manifests import Parents
from resources.artifact_store.artifacts import Artifact, ArtifactError, Collection, Line, parse_uri

Published = Callable[[str], Artifact]
"""Gives the artifact at an `artifact://…` address, such as `ArtifactStore.get`."""
Parent = Literal["adapter", "dataset", "base"]
COLLECTIONS: dict[Parent, Collection] = {
    "adapter": "adapters",
    "dataset": "datasets",
    "base": "base_models",
}


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """A merged model and everything that it was made from."""

    merged: Artifact
    adapter: Artifact
    dataset: Artifact
    base: Artifact


def lineage_of(published: Published, merged: Artifact) -> Lineage:
    """Raises:
    ArtifactError: A parent is gone, or is another one than the manifest can mean.
    """
    return Lineage(
        merged=merged,
        adapter=parent_of(published, merged, "adapter"),
        dataset=parent_of(published, merged, "dataset"),
        base=parent_of(published, merged, "base"),
    )


def parent_of(published: Published, artifact: Artifact, parent: Parent) -> Artifact:
    """What an artifact says that it was made from.

    Raises:
        ArtifactError: It says nothing, the parent is gone, of another tenant or model, or has another digest.
    """
    named = Parents.of(artifact)
    uri, digest = getattr(named, f"{parent}_uri"), getattr(named, f"{parent}_digest")
    line, _ = parse_uri(str(uri))
    if line != _line(artifact.line, parent, line.name):
        raise ArtifactError(
            f"{artifact.uri} says that its {parent} is {uri}, which is none of {artifact.line.name} of "
            f"{artifact.line.tenant}: its manifest was altered. {_ANEW}"
        )
    found = published(str(uri))
    if found.digest != digest:
        raise ArtifactError(
            f"{artifact.uri} was made from the {parent} {uri} as {digest}, which is {found.digest} now: one "
            f"of the two was altered. {_ANEW}"
        )
    return found


_ANEW = "Find out by whom; delete that version and run again."


def _line(of: Line, parent: Parent, name: str) -> Line:
    """Whose parents there may be; any base model is one."""
    if parent == "base":
        return Line(collection=COLLECTIONS[parent], tenant=None, name=name)
    return Line(collection=COLLECTIONS[parent], tenant=of.tenant, name=of.name)
