"""Models in real object stores: whole, altered, incomplete, unreachable."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from resources.artifact_store.artifacts import MANIFEST_NAME
from resources.object_stores.retries import Retries
from resources.seams.serving import ServingError
from resources.vllm.streamed_weights import StreamedModel
from tests.buckets import Bucket, gcs_bucket, s3_bucket
from tests.servers.ports import free_port

SHORT = Retries(connect_s=2, silence_s=5, give_up_s=1)
WEIGHTS = bytes(range(256)) * 80_000  # 20 MB: several chunks


@pytest.fixture(scope="module", params=["s3", "gs"])
def bucket(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with s3_bucket() if request.param == "s3" else gcs_bucket(tmp_path_factory.mktemp("gcs")) as bucket:
        yield bucket


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def place(request: pytest.FixtureRequest) -> str:
    """Where the test's own model lies in the bucket."""
    return f"store/{abs(hash(request.node.name))}"


@pytest.fixture
def published(
    bucket: Bucket, folder: Path, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> StreamedModel:
    for variable, value in bucket.environment.items():
        monkeypatch.setenv(variable, value)
    uri, digest = bucket.publish(folder, place)
    seal = tmp_path / "seals" / "v1.json"
    return StreamedModel(uri=uri, digest=digest, seal=seal, retries=SHORT)


def test_a_whole_model_is_verified_and_stays_so(published: StreamedModel) -> None:
    published.verify()
    published.require_unchanged()
    assert json.loads(published.seal.read_text())["digest"] == published.digest


def test_what_was_verified_is_not_read_again(published: StreamedModel) -> None:
    published.verify()
    remembered = published.seal.stat().st_mtime_ns
    published.verify()
    assert published.seal.stat().st_mtime_ns == remembered


def test_one_flipped_byte_is_refused_and_names_the_file(
    published: StreamedModel, bucket: Bucket, tmp_path: Path
) -> None:
    altered = bytearray(WEIGHTS)
    altered[-1] ^= 1
    bucket.put(f"{published.uri}/model.safetensors", bytes(altered), tmp_path)
    with pytest.raises(ServingError, match=r"is not served: the bytes of model\.safetensors are not those"):
        published.verify()
    assert not published.seal.exists()


def test_what_changes_while_a_server_loads_is_refused(
    published: StreamedModel, bucket: Bucket, tmp_path: Path
) -> None:
    published.verify()
    bucket.put(f"{published.uri}/model.safetensors", WEIGHTS[1:], tmp_path)
    with pytest.raises(ServingError, match=r"model\.safetensors was changed while the server loaded it"):
        published.require_unchanged()
    with pytest.raises(ServingError, match=r"the bytes of model\.safetensors"):
        published.verify()


def test_weights_that_are_not_of_the_version_are_refused(
    published: StreamedModel, bucket: Bucket, tmp_path: Path
) -> None:
    bucket.put(
        f"{published.uri}/another.safetensors", b"x", tmp_path
    )  # the streamer would load every one it finds
    with pytest.raises(ServingError, match=r"another\.safetensors is not of the version"):
        published.verify()


def test_another_version_is_refused_by_its_digest(published: StreamedModel) -> None:
    other = replace(published, digest="sha256:other")
    with pytest.raises(
        ServingError, match=rf"its manifest is of {published.digest}, promoted was sha256:other"
    ):
        other.verify()
    published.verify()
    with pytest.raises(ServingError, match="promoted was sha256:other"):
        other.verify()  # the seal is of the other digest


def test_a_manifest_that_is_none_is_refused(published: StreamedModel, bucket: Bucket, tmp_path: Path) -> None:
    bucket.put(f"{published.uri}/{MANIFEST_NAME}", b"<html>", tmp_path)
    with pytest.raises(ServingError, match="is no manifest"):
        published.verify()


def test_what_was_never_published_is_refused(published: StreamedModel) -> None:
    nothing = replace(published, uri=published.uri + "-2")
    with pytest.raises(ServingError, match="it has no manifest"):
        nothing.verify()


def test_a_bucket_that_does_not_exist_is_one_error_with_the_remedy(published: StreamedModel) -> None:
    nowhere = replace(published, uri=published.uri.replace("://models/", "://elsewhere/"))
    with pytest.raises(ServingError, match=r"elsewhere/.* cannot be read: .*serving\.weights: disk"):
        nowhere.verify()


def test_a_server_that_is_gone_is_an_error_in_time(
    published: StreamedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    for variable in ("AWS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST"):
        monkeypatch.setenv(variable, nowhere)
    with pytest.raises(ServingError, match="cannot be read"):
        published.verify()
