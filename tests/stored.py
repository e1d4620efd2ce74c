"""Where a store on a disk keeps an artifact, for tests that do something to it behind its back."""

from pathlib import Path

from resources.artifact_store import ArtifactStore
from resources.artifacts import Artifact


def folder_of(store: ArtifactStore, artifact: Artifact) -> Path:
    return Path(store.url.removeprefix("file:"), artifact.key)
