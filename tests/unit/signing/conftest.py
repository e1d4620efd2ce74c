"""A small published model and the keys to sign it with."""

from pathlib import Path

import pytest

from resources.artifact_store.artifacts import Artifact, Line
from resources.artifact_store.store import ArtifactStore
from resources.signing.signatures import Signer, Verifier


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(url=f"file:{tmp_path}/store")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def signer(keys: Path) -> Signer:
    return Signer(keys=keys)


@pytest.fixture
def verifier(keys: Path) -> Verifier:
    return Verifier(keys=keys)


@pytest.fixture
def artifact(store: ArtifactStore, tmp_path: Path) -> Artifact:
    return publish(store, tmp_path)


def publish(store: ArtifactStore, tmp_path: Path, tenant: str = "team-a", **attributes: object) -> Artifact:
    folder = tmp_path / "made"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights" * 1000)
    (folder / "tokenizer" / "vocab.json").write_text('{"zażółć": 1}')
    line = Line(collection="models", tenant=tenant, name="support_bot")
    return store.publish(line, folder, {"recipe": {"lora_rank": 8, "learning_rate": 2e-3}, **attributes})
