"""Publishing to a disk: whole or not there, found again by fingerprint, damage named."""

import shutil
import subprocess
from pathlib import Path

import pytest

from llm_assets.workers import trained_files
from resources.artifact_store import UNFINISHED, ArtifactStore, parse_uri
from resources.artifacts import MANIFEST_NAME, ArtifactError, Line, describe_folder, digest_of, fingerprint_of

LINE = Line(collection="models", tenant="team-a", name="support_bot")


def a_folder(place: Path, content: str = "weights") -> Path:
    folder = place / "folder"
    (folder / "nested").mkdir(parents=True)
    (folder / "model.safetensors").write_text(content)
    (folder / "nested" / "config.json").write_text("{}")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(root=str(tmp_path / "store"))


def test_a_published_folder_is_found_by_its_address_and_its_fingerprint(
    store: ArtifactStore, tmp_path: Path
) -> None:
    artifact = store.publish(LINE, a_folder(tmp_path), {"fingerprint": "sha256:f"})
    assert store.get(artifact.uri) == artifact == store.find(LINE, "sha256:f")
    assert (artifact.folder / "nested" / "config.json").read_text() == "{}"
    assert store.find(LINE, "sha256:other") is None
    assert not (tmp_path / "folder").exists()


def test_the_digest_depends_on_bytes_and_paths_alone(store: ArtifactStore, tmp_path: Path) -> None:
    first = store.publish(LINE, a_folder(tmp_path), {"fingerprint": "1"})
    second = store.publish(LINE, a_folder(tmp_path), {"fingerprint": "2", "owner": "else"})
    changed = store.publish(LINE, a_folder(tmp_path, "other weights"), {"fingerprint": "3"})
    assert first.digest == second.digest != changed.digest
    assert [version.fingerprint for version in store.versions(LINE)] == ["3", "2", "1"]


def test_publishing_the_same_again_gives_the_version_that_is_there(
    store: ArtifactStore, tmp_path: Path
) -> None:
    first = store.publish(LINE, a_folder(tmp_path), {"fingerprint": "1"})
    assert store.publish(LINE, a_folder(tmp_path), {"fingerprint": "1"}) == first
    assert len(list(store.versions(LINE))) == 1


def test_what_a_killed_publisher_left_is_no_version_and_is_cleared_away(
    store: ArtifactStore, tmp_path: Path
) -> None:
    left = Path(store.root, str(LINE), f"{UNFINISHED}abc")
    left.mkdir(parents=True)
    (left / "model.safetensors").write_text("half")
    assert list(store.versions(LINE)) == []
    store.publish(LINE, a_folder(tmp_path), {})
    assert not left.exists()


def test_one_flipped_byte_is_refused_by_name(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = store.publish(LINE, a_folder(tmp_path), {})
    (artifact.folder / "model.safetensors").write_text("weightz")
    with pytest.raises(ArtifactError, match=r"the bytes of model\.safetensors are not those"):
        store.verify(artifact)


def test_a_missing_and_a_shortened_file_are_named(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = store.publish(LINE, a_folder(tmp_path), {})
    (artifact.folder / "model.safetensors").write_text("w")
    with pytest.raises(ArtifactError, match=r"model\.safetensors has 1 bytes, published were 7"):
        store.verify(artifact)
    (artifact.folder / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"model\.safetensors is missing"):
        store.verify(artifact)


def test_an_altered_manifest_is_noticed(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = store.publish(LINE, a_folder(tmp_path), {})
    manifest = artifact.folder / MANIFEST_NAME
    manifest.write_text(manifest.read_text().replace('"size_bytes": 7', '"size_bytes": 8'))
    with pytest.raises(ArtifactError, match="was altered"):
        store.get(artifact.uri)


def test_a_linked_manifest_of_another_artifact_is_never_written_through(
    store: ArtifactStore, tmp_path: Path
) -> None:
    first = store.publish(LINE, a_folder(tmp_path), {"fingerprint": "1"})
    before = (first.folder / MANIFEST_NAME).read_bytes()
    linked = a_folder(tmp_path, "other weights")
    (linked / MANIFEST_NAME).hardlink_to(first.folder / MANIFEST_NAME)
    assert store.publish(LINE, linked, {"fingerprint": "2"}).fingerprint == "2"
    assert (first.folder / MANIFEST_NAME).read_bytes() == before
    assert store.get(first.uri) == first


def test_a_full_training_that_is_published_as_a_model_leaves_its_adapter_as_it_was(
    store: ArtifactStore, tmp_path: Path
) -> None:
    trained = store.publish(
        Line(collection="adapters", tenant="team-a", name="support_bot"),
        a_folder(tmp_path),
        {"is": "trained"},
    )
    trained_files.keep(trained.folder, tmp_path / "merged", base_model=None)
    merged = store.publish(LINE, tmp_path / "merged", {"is": "merged"})
    assert [file.path for file in merged.files] == ["model.safetensors"]
    assert store.verify(store.get(trained.uri)) == trained
    assert store.get(merged.uri).attributes == {"is": "merged"}


def test_what_somebody_put_beside_the_versions_is_none(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = store.publish(LINE, a_folder(tmp_path), {})
    (artifact.folder.parent / "notes.txt").write_text("mine")
    assert list(store.versions(LINE)) == [artifact]


def test_an_empty_folder_is_not_published(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="There is nothing to publish"):
        store.publish(LINE, tmp_path / "empty", {})


@pytest.mark.parametrize("name", ["Support", "support-bot", "..", "a.b", ""])
def test_a_line_is_named_in_snake_case(name: str) -> None:
    with pytest.raises(ArtifactError):
        Line(collection="models", tenant="team-a", name=name)


@pytest.mark.parametrize("part", ["team_a", "Team", "-a", "a" * 64, "..", ".hidden", "a/b", "", "a\\b"])
def test_no_name_leaves_the_store(part: str) -> None:
    with pytest.raises(ArtifactError, match="cannot be part of an artifact's address"):
        Line(collection="models", tenant=part, name="support_bot")


@pytest.mark.parametrize(
    "uri",
    [
        *("models/a/b/c", "file://models/a/b/c", "artifact://models/b", "artifact://etc/a/b/c"),
        *("artifact://models/a/b/..", "artifact://models/a/b/", "artifact://models/a/b/.unfinished-1"),
        "artifact://models/Team A/b/c",
    ],
)
def test_what_is_not_an_address_is_refused(uri: str) -> None:
    with pytest.raises(ArtifactError):
        parse_uri(uri)


def test_a_full_disk_is_said_and_leaves_no_version(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small disk")
    try:
        store = ArtifactStore(root=str(disk / "store"))
        with pytest.raises(ArtifactError, match=r"disk of the artifact store at .* is full"):
            store.publish(LINE, a_folder(tmp_path, "x" * 200_000), {})
        assert list(store.versions(LINE)) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_fingerprint_does_not_depend_on_the_order_of_ingredients() -> None:
    assert fingerprint_of(a=1, b={"x": 1, "y": 2}) == fingerprint_of(b={"y": 2, "x": 1}, a=1)
    assert fingerprint_of(a=1) != fingerprint_of(a=2)


def test_a_renamed_file_changes_the_digest(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    before = digest_of(describe_folder(folder))
    shutil.move(folder / "model.safetensors", folder / "renamed.safetensors")
    assert digest_of(describe_folder(folder)) != before
