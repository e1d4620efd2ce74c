"""The manifests of a store: what was published there. Reading them needs neither Dagster nor a cache."""

from resources.artifact_store.artifacts import (
    MANIFEST_NAME,
    Artifact,
    ArtifactError,
    Line,
    parse_manifest,
    parse_uri,
)
from resources.object_stores.objects import ObjectMissing, ObjectStore


def read_manifest(objects: ObjectStore, line: Line, version: str) -> Artifact | None:
    """A version of a line; None where nothing was published under that label."""
    key = f"{line}/{version}/{MANIFEST_NAME}"
    try:
        text = objects.read(key)
    except ObjectMissing:
        return None
    return parse_manifest(line, version, text, place=f"{objects.url}/{key}")


def published(objects: ObjectStore, uri: str) -> Artifact:
    """The artifact at an `artifact://…` address.

    Raises:
        ArtifactError: The address is not one, or nothing was published there.
    """
    line, version = parse_uri(uri)
    artifact = read_manifest(objects, line, version)
    if artifact is None:
        manifest = f"{objects.url}/{line}/{version}/{MANIFEST_NAME}"
        raise ArtifactError(f"{uri} was never published: {manifest} does not exist.")
    return artifact
