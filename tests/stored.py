"""Where a store on a disk keeps an artifact, for tests that do something to it behind its back."""

from pathlib import Path

from resources.artifact_store.artifacts import Artifact
from resources.artifact_store.store import ArtifactStore


def folder_of(store: ArtifactStore, artifact: Artifact) -> Path:
    return Path(store.url.removeprefix("file:"), artifact.key)
