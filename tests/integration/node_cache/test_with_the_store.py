"""The artifact store and the node's cache together: fetched from a real store, then served without it."""

import multiprocessing
import random
from pathlib import Path

import pytest

from resources.artifact_store.artifacts import Artifact, ArtifactError
from resources.artifact_store.store import ArtifactStore
from tests.integration.node_cache.conftest import AMPLE, LINE, problem_of, some_bytes

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(url=f"file:{tmp_path}/store", cache=str(tmp_path / "cache"), cache_limit_bytes=AMPLE)


@pytest.fixture
def model(store: ArtifactStore, tmp_path: Path) -> Artifact:
    return store.publish(LINE, a_folder(tmp_path / "model", seed="model"), {"fingerprint": "sha256:f"})


def a_folder(folder: Path, *, seed: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    for shard in range(4):
        (folder / f"model-{shard}.safetensors").write_bytes(some_bytes(5 * 2**20, (seed, shard)))
    return folder


def compare(store: ArtifactStore, artifact: Artifact) -> None:
    with store.hold(artifact) as held:
        problem = problem_of(artifact, held.folder)
    if problem:
        raise AssertionError(problem)


def test_what_the_node_has_needs_no_store_any_more(
    store: ArtifactStore, model: Artifact, tmp_path: Path
) -> None:
    compare(store, model)
    (tmp_path / "store").rename(tmp_path / "away")
    compare(store, model)


def test_fetchers_that_are_killed_are_followed_by_one_that_finishes(
    store: ArtifactStore, model: Artifact, tmp_path: Path
) -> None:
    chance, killed, folder = random.Random(3), 0, tmp_path / "cache" / "artifacts" / model.digest[7:]
    for _ in range(15):
        fetcher = FORK.Process(target=compare, args=(store, model))
        fetcher.start()
        fetcher.join(chance.uniform(0.001, 0.03))
        killed += fetcher.is_alive()
        fetcher.kill()
        fetcher.join()
        assert not folder.is_dir() or problem_of(model, folder) is None
    assert killed > 0
    compare(store, model)


def test_a_byte_that_flipped_in_the_store_is_refused_and_one_in_the_cache_is_mended(
    store: ArtifactStore, model: Artifact, tmp_path: Path
) -> None:
    published = next((tmp_path / "store").rglob("model-2.safetensors"))
    flip(published)
    with pytest.raises(ArtifactError, match=r"model-2\.safetensors came with .* second time"):
        compare(store, model)
    flip(published)
    compare(store, model)
    flip(tmp_path / "cache" / "artifacts" / model.digest[7:] / "model-2.safetensors")
    said: list[str] = []
    with store.hold(model, said.append) as held:
        assert problem_of(model, held.folder) is None
    assert any("the bytes of model-2.safetensors are not those that were published" in line for line in said)


def flip(file: Path) -> None:
    file.chmod(0o644)
    with file.open("r+b") as stream:
        stream.seek(12345)
        (byte,) = stream.read(1)
        stream.seek(12345)
        stream.write(bytes([byte ^ 1]))
