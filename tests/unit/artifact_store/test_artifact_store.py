"""Publishing to a disk: whole or not there, found by fingerprint, nothing brought twice, damage named."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from llm_assets.workers import trained_files
from resources.artifact_store.artifacts import (
    MANIFEST_NAME,
    Artifact,
    ArtifactError,
    ArtifactFile,
    Line,
    digest_of,
    fingerprint_of,
    new_version,
    parse_uri,
    paths_of,
)
from resources.artifact_store.publication import LEFT_ALONE
from resources.artifact_store.store import ArtifactStore
from resources.hashes import sha256_of

LINE = Line(collection="models", tenant="team-a", name="support_bot")


def a_folder(place: Path, content: str = "weights") -> Path:
    folder = place / "folder"
    (folder / "nested").mkdir(parents=True)
    (folder / "model.safetensors").write_text(content)
    (folder / "nested" / "config.json").write_text("{}")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(url=f"file:{tmp_path}/store")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the store's files lie, for what a test does to them behind its back."""
    return tmp_path / "store"


def hold(store: ArtifactStore, artifact: Artifact) -> None:
    with store.hold(artifact):
        pass


def left_behind(place: Path, fingerprint: str, *, at: datetime | None = None) -> Path:
    """What a publisher leaves that was killed before its manifest."""
    folder = place / str(LINE) / new_version(fingerprint, at=at)
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text("weights")
    return folder


def test_a_published_folder_is_found_by_its_address_and_its_fingerprint(
    store: ArtifactStore, tmp_path: Path
) -> None:
    artifact = store.publish(LINE, a_folder(tmp_path), {"fingerprint": "sha256:f"})
    assert store.get(artifact.uri) == artifact == store.find(LINE, "sha256:f")
    assert store.read(artifact, "nested/config.json") == b"{}"
    assert store.find(LINE, "sha256:other") is None
    assert not (tmp_path / "folder").exists()


def test_a_held_artifact_lies_whole_in_a_folder(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = store.publish(LINE, a_folder(tmp_path), {})
    with store.hold(artifact) as held:
        assert paths_of(held.folder) == ["model.safetensors", "nested/config.json"]
        assert (held.folder / "model.safetensors").read_text() == "weights"


def test_the_digest_depends_on_bytes_and_paths_alone(store: ArtifactStore, tmp_path: Path) -> None:
    first = store.publish(LINE, a_folder(tmp_path), {"fingerprint": "1"})
    second = store.publish(LINE, a_folder(tmp_path), {"fingerprint": "2", "owner": "else"})
    changed = store.publish(LINE, a_folder(tmp_path, "other weights"), {"fingerprint": "3"})
    assert first.digest == second.digest != changed.digest
    assert [version.fingerprint for version in store.versions(LINE)] == ["3", "2", "1"]


def test_publishing_the_same_again_gives_the_version_that_is_there(
    store: ArtifactStore, tmp_path: Path, place: Path
) -> None:
    first = store.publish(LINE, a_folder(tmp_path), {"fingerprint": "1"})
    assert store.publish(LINE, a_folder(tmp_path), {"fingerprint": "1"}) == first
    assert [folder.name for folder in (place / str(LINE)).iterdir()] == [first.version]


def test_a_file_that_an_earlier_version_or_a_parent_has_is_linked(
    store: ArtifactStore, tmp_path: Path, place: Path
) -> None:
    base = store.publish(Line(collection="base_models", tenant=None, name="tiny"), a_folder(tmp_path), {})
    first = store.publish(LINE, a_folder(tmp_path), {"fingerprint": "1"}, parents=[base])
    second = store.publish(LINE, a_folder(tmp_path, "other"), {"fingerprint": "2"})
    shared = [place / each.key / "nested" / "config.json" for each in (base, first, second)]
    assert len({file.stat().st_ino for file in shared}) == 1
    weights = [place / each.key / "model.safetensors" for each in (base, first, second)]
    assert len({file.stat().st_ino for file in weights}) == 2


@pytest.mark.parametrize("now", ["", None])
def test_what_was_cut_or_deleted_in_an_earlier_version_is_sent_anew(
    store: ArtifactStore, tmp_path: Path, place: Path, now: str | None
) -> None:
    first = store.publish(LINE, a_folder(tmp_path), {"fingerprint": "1"})
    damaged = place / first.key / "nested" / "config.json"
    damaged.unlink()
    if now is not None:
        damaged.write_text(now)
    second = store.publish(LINE, a_folder(tmp_path, "other"), {"fingerprint": "2"})
    hold(store, second)
    with pytest.raises(ArtifactError, match=r"nested/config\.json"):
        hold(store, first)


def test_another_tenants_files_are_never_taken_over(
    store: ArtifactStore, tmp_path: Path, place: Path
) -> None:
    theirs = Line(collection="models", tenant="team-b", name="support_bot")
    artifacts = [store.publish(line, a_folder(tmp_path), {}) for line in (theirs, LINE)]
    assert len({(place / each.key / "model.safetensors").stat().st_ino for each in artifacts}) == 2


def test_what_a_killed_publisher_left_is_no_version_and_is_taken_over(
    store: ArtifactStore, tmp_path: Path, place: Path
) -> None:
    left = left_behind(place, "sha256:f")
    assert list(store.versions(LINE)) == []
    assert store.find(LINE, "sha256:f") is None
    assert store.unfinished(LINE) == [f"{LINE}/{left.name}/"]
    artifact = store.publish(LINE, a_folder(tmp_path), {"fingerprint": "sha256:f"})
    taken = place / artifact.key / "model.safetensors"
    assert taken.samefile(left / "model.safetensors"), "it was brought again"
    assert left.exists(), "another machine may still be at work on it"


def test_leftovers_are_deleted_when_nobody_can_be_at_work_on_them(
    store: ArtifactStore, tmp_path: Path, place: Path
) -> None:
    old = left_behind(place, "sha256:f", at=datetime.now(UTC) - 2 * LEFT_ALONE)
    artifact = store.publish(LINE, a_folder(tmp_path), {"fingerprint": "sha256:f"})
    assert not old.exists()
    with store.hold(artifact):
        assert store.unfinished(LINE) == []


def test_what_any_killed_work_left_long_ago_is_cleared_on_request(
    store: ArtifactStore, tmp_path: Path, place: Path
) -> None:
    old = left_behind(place, "sha256:other work", at=datetime.now(UTC) - 2 * LEFT_ALONE)
    young = left_behind(place, "sha256:f")
    (place / str(LINE) / "drafts").mkdir()
    (place / str(LINE) / "drafts" / "notes.txt").write_text("mine")
    assert store.clear_abandoned(store.unfinished(LINE)) == [f"{LINE}/{old.name}/"]
    assert young.exists()
    assert (place / str(LINE) / "drafts" / "notes.txt").exists()


def test_files_published_one_by_one_appear_with_the_manifest_and_not_before(
    store: ArtifactStore, tmp_path: Path
) -> None:
    folder = a_folder(tmp_path)
    weights = folder / "model.safetensors"
    with store.publication(LINE, "sha256:f") as publication:
        publication.add("model.safetensors", weights, sha256=sha256_of(weights))
        assert store.find(LINE, "sha256:f") is None
        publication.add("nested/config.json", folder / "nested" / "config.json")
        draft = publication.draft()
    assert store.find(LINE, "sha256:f") is None
    artifact = store.finish(draft, {"fingerprint": "sha256:f"})
    assert store.find(LINE, "sha256:f") == artifact
    with store.hold(artifact) as held:
        assert paths_of(held.folder) == ["model.safetensors", "nested/config.json"]


def test_a_publication_that_fails_makes_no_version(store: ArtifactStore, tmp_path: Path) -> None:
    folder = a_folder(tmp_path)

    def fail() -> None:
        with store.publication(LINE, "sha256:f") as publication:
            publication.add("model.safetensors", folder / "model.safetensors")
            raise RuntimeError("the engine died")

    with pytest.raises(RuntimeError, match="the engine died"):
        fail()
    assert list(store.versions(LINE)) == []


def test_a_version_whose_files_vanish_while_it_is_published_is_not_shown(
    store: ArtifactStore, tmp_path: Path, place: Path
) -> None:
    folder = a_folder(tmp_path)
    with store.publication(LINE, "sha256:f") as publication:
        publication.add("model.safetensors", folder / "model.safetensors")
        publication.files()
        next(place.rglob("model.safetensors")).unlink()
        with pytest.raises(ArtifactError, match=r"was not published: model\.safetensors is gone"):
            publication.draft()
    assert list(store.versions(LINE)) == []


def test_one_flipped_byte_is_refused_by_name(store: ArtifactStore, tmp_path: Path, place: Path) -> None:
    artifact = store.publish(LINE, a_folder(tmp_path), {})
    (place / artifact.key / "model.safetensors").write_text("weightz")
    with pytest.raises(ArtifactError, match=r"the bytes of model\.safetensors are not those"):
        hold(store, artifact)
    with pytest.raises(ArtifactError, match=r"the bytes of model\.safetensors are not those"):
        store.read(artifact, "model.safetensors")


def test_a_missing_and_a_shortened_file_are_named(store: ArtifactStore, tmp_path: Path, place: Path) -> None:
    artifact = store.publish(LINE, a_folder(tmp_path), {})
    (place / artifact.key / "model.safetensors").write_text("w")
    with pytest.raises(ArtifactError, match=r"model\.safetensors has 1 bytes, published were 7"):
        hold(store, artifact)
    (place / artifact.key / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"model\.safetensors is missing"):
        hold(store, artifact)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"size_bytes": 7', '"size_bytes": 8'),
        ('"licence": "mit"', '"licence": "MIT"'),
        ('"uri"', '"url"'),
        ("{", ""),
    ],
)
def test_an_altered_manifest_is_noticed(
    store: ArtifactStore, tmp_path: Path, place: Path, before: str, after: str
) -> None:
    artifact = store.publish(LINE, a_folder(tmp_path), {"licence": "mit"})
    manifest = place / artifact.key / MANIFEST_NAME
    manifest.write_text(manifest.read_text().replace(before, after, 1))
    with pytest.raises(ArtifactError, match=r"was altered|is not a manifest"):
        store.get(artifact.uri)


def test_the_manifest_of_another_version_is_noticed(
    store: ArtifactStore, tmp_path: Path, place: Path
) -> None:
    theirs = store.publish(
        Line(collection="models", tenant="team-b", name="support_bot"), a_folder(tmp_path), {}
    )
    mine = store.publish(LINE, a_folder(tmp_path, "other"), {})
    shutil.copyfile(place / theirs.key / MANIFEST_NAME, place / mine.key / MANIFEST_NAME)
    with pytest.raises(ArtifactError, match=r"is the manifest of artifact://models/team-b/support_bot"):
        store.get(mine.uri)


def test_a_linked_manifest_of_another_artifact_is_never_written_through(
    store: ArtifactStore, tmp_path: Path, place: Path
) -> None:
    first = store.publish(LINE, a_folder(tmp_path), {"fingerprint": "1"})
    before = (place / first.key / MANIFEST_NAME).read_bytes()
    linked = a_folder(tmp_path, "other weights")
    (linked / MANIFEST_NAME).hardlink_to(place / first.key / MANIFEST_NAME)
    assert store.publish(LINE, linked, {"fingerprint": "2"}).fingerprint == "2"
    assert (place / first.key / MANIFEST_NAME).read_bytes() == before
    assert store.get(first.uri) == first


def test_a_full_training_that_is_published_as_a_model_leaves_its_adapter_as_it_was(
    store: ArtifactStore, tmp_path: Path
) -> None:
    trained = store.publish(
        Line(collection="adapters", tenant="team-a", name="support_bot"),
        a_folder(tmp_path),
        {"is": "trained"},
    )
    with store.hold(trained) as folder:
        trained_files.keep(folder.folder, tmp_path / "merged", base_model=None)
    merged = store.publish(LINE, tmp_path / "merged", {"is": "merged"})
    assert [file.path for file in merged.files] == ["model.safetensors"]
    with store.hold(store.get(trained.uri)):
        assert store.get(merged.uri).attributes == {"is": "merged"}


def test_what_somebody_put_beside_the_versions_is_none(
    store: ArtifactStore, tmp_path: Path, place: Path
) -> None:
    artifact = store.publish(LINE, a_folder(tmp_path), {})
    (place / str(LINE) / "notes.txt").write_text("mine")
    (place / str(LINE) / "drafts").mkdir()
    (place / str(LINE) / "drafts" / "notes.txt").write_text("mine")
    assert list(store.versions(LINE)) == [artifact]


def test_a_deleted_version_is_gone_and_its_shared_files_stay(store: ArtifactStore, tmp_path: Path) -> None:
    first = store.publish(LINE, a_folder(tmp_path), {"fingerprint": "1"})
    second = store.publish(LINE, a_folder(tmp_path), {"fingerprint": "2"})
    store.delete(first)
    store.delete(first)
    assert list(store.versions(LINE)) == [second]
    with store.hold(second), pytest.raises(ArtifactError, match="was never published"):
        store.get(first.uri)


def test_every_line_is_listed(store: ArtifactStore, tmp_path: Path) -> None:
    lines = [LINE, Line(collection="base_models", tenant=None, name="tiny")]
    for line in lines:
        store.publish(line, a_folder(tmp_path), {})
    assert set(map(str, store.lines())) == set(map(str, lines))


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


def test_a_fingerprint_does_not_depend_on_the_order_of_ingredients() -> None:
    assert fingerprint_of(a=1, b={"x": 1, "y": 2}) == fingerprint_of(b={"y": 2, "x": 1}, a=1)
    assert fingerprint_of(a=1) != fingerprint_of(a=2)


def test_a_renamed_file_changes_the_digest() -> None:
    file = ArtifactFile(path="model.safetensors", size_bytes=1, sha256="0" * 64)
    renamed = ArtifactFile(path="renamed.safetensors", size_bytes=1, sha256="0" * 64)
    assert digest_of((file,)) != digest_of((renamed,))
