"""A file too many, in every store and every kind of artifact: named as damage, and opened by nobody."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from resources.artifact_store.artifacts import Artifact, ArtifactError, Collection, Line, entries_of
from resources.artifact_store.store import VIEWS, ArtifactStore
from resources.node_cache import Held
from resources.object_stores.disk import DiskStore
from resources.object_stores.opening import open_object_store

AMPLE = 2**30
FILES = {"model.safetensors": b"weights", "nested/config.json": b"{}"}
# What vLLM, transformers, PEFT and LLaMA-Factory would each take in.
FOREIGN = (
    "zz-extra.safetensors",
    "adapter_config.json",
    "modeling_extra.py",
    "nested/generation_config.json",
    "new/tokenizer.json",
    ".hidden.safetensors",
)


def a_line(collection: Collection) -> Line:
    return Line(
        collection=collection, tenant=None if collection == "base_models" else "team-a", name="support_bot"
    )


def publish(store: ArtifactStore, line: Line, tmp_path: Path) -> Artifact:
    folder = tmp_path / "made"
    for path, content in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return store.publish(line, folder, {})


def read(held: Held) -> dict[str, bytes]:
    return {path: (held.folder / path).read_bytes() for path in entries_of(held.folder)}


def readers(url: str, cache: Path) -> Iterator[ArtifactStore]:
    """The ways to a store's files: the node's cache, and where they lie on this very disk."""
    yield ArtifactStore(url=url, cache=str(cache), cache_limit_bytes=AMPLE)
    if url.startswith("file:"):
        yield ArtifactStore(url=url)


@pytest.mark.parametrize("collection", get_args(Collection))
def test_a_foreign_file_is_named_by_verify_and_by_fetch_and_never_opened(
    url: str, collection: Collection, tmp_path: Path
) -> None:
    objects = open_object_store(url)
    for store in readers(url, tmp_path / "cache"):
        artifact = publish(store, a_line(collection), tmp_path)
        for name in FOREIGN:
            objects.create(f"{artifact.key}/{name}", b"another model")
            with pytest.raises(ArtifactError, match=rf"{name} in .*{artifact.key} is not a file of it"):
                store.verify(artifact)
            with pytest.raises(ArtifactError, match=name), store.hold(artifact):
                raise AssertionError("it was given to a reader")
            objects.delete(f"{artifact.key}/{name}")
        with store.hold(artifact) as held:
            objects.create(f"{artifact.key}/{FOREIGN[0]}", b"another model")
            assert read(held) == FILES, "what came later is in the reader's folder"
        with pytest.raises(ArtifactError, match=FOREIGN[0]):
            store.verify(artifact)


@pytest.fixture
def disk(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(url=f"file:{tmp_path}/store")


@pytest.fixture
def model(disk: ArtifactStore, tmp_path: Path) -> Artifact:
    return publish(disk, a_line("models"), tmp_path)


@pytest.fixture
def place(model: Artifact, tmp_path: Path) -> Path:
    return tmp_path / "store" / model.key


def views(tmp_path: Path) -> Iterator[Path]:
    return (path for path in (tmp_path / "store" / VIEWS).rglob("*") if not path.is_dir())


@pytest.mark.parametrize("kind", ["link", "link to a folder", "pipe", "unfinished"])
def test_whatever_lies_in_a_folder_on_a_disk_is_named_whatever_it_is(
    disk: ArtifactStore, model: Artifact, place: Path, tmp_path: Path, kind: str
) -> None:
    extra = place / (".unfinished-x.safetensors" if kind == "unfinished" else "extra.safetensors")
    if kind == "pipe":
        os.mkfifo(extra)
    elif kind == "unfinished":
        extra.write_bytes(b"another model")
    else:
        extra.symlink_to(place / "nested" if kind == "link to a folder" else place / "model.safetensors")
    with pytest.raises(ArtifactError, match=rf"{extra.name} in .* is not a file of it"):
        disk.verify(model)


def test_a_link_in_the_place_of_a_file_is_refused_whatever_it_leads_to(
    disk: ArtifactStore, model: Artifact, place: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").write_bytes(FILES["model.safetensors"])
    (place / "model.safetensors").unlink()
    (place / "model.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match=r"model\.safetensors is no file but a link"):
        disk.verify(model)


def test_a_linked_file_is_published_as_a_file(disk: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"weights")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model.safetensors").symlink_to(tmp_path / "blob")
    artifact = disk.publish(a_line("models"), tmp_path / "folder", {})
    with disk.hold(artifact) as held:
        assert not (held.folder / "model.safetensors").is_symlink()


def test_a_file_that_is_exchanged_after_it_was_verified_does_not_reach_the_reader(
    disk: ArtifactStore, model: Artifact, place: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").write_bytes(b"another")
    with disk.hold(model) as held:
        (tmp_path / "other").replace(place / "model.safetensors")
        assert read(held) == FILES
    with pytest.raises(ArtifactError, match=r"the bytes of model\.safetensors are not those"):
        disk.verify(model)


def test_what_was_put_into_a_view_is_gone_for_the_next_reader(
    disk: ArtifactStore, model: Artifact, tmp_path: Path
) -> None:
    with disk.hold(model) as first:
        (first.folder / "zz-extra.safetensors").write_bytes(b"another model")
        (first.folder / "nested" / "config.json").unlink()
        (first.folder / "nested" / "config.json").mkdir()
        with disk.hold(model) as second:
            assert second.folder == first.folder
            assert read(second) == FILES


def test_a_view_stands_as_long_as_somebody_has_its_lease_and_no_longer(
    disk: ArtifactStore, model: Artifact, tmp_path: Path
) -> None:
    with disk.hold(model) as outer:
        with disk.hold(model):
            pass
        assert read(outer) == FILES
    assert list(views(tmp_path)) == []
    assert not outer.folder.exists()


def test_what_a_killed_reader_left_goes_with_the_next_hold_of_the_line_and_with_its_version(
    disk: ArtifactStore, model: Artifact, tmp_path: Path
) -> None:
    other = publish(disk, a_line("models"), tmp_path)
    for clears in (lambda: disk.verify(other), lambda: disk.delete(model)):
        if (child := os.fork()) == 0:
            with disk.hold(model):
                os._exit(0)
        os.waitpid(child, 0)
        assert list(views(tmp_path)) != []
        clears()
        assert list(views(tmp_path)) == []


def test_where_there_are_no_hard_links_a_view_leads_to_the_files_themselves(
    disk: ArtifactStore, model: Artifact, place: Path, tmp_path: Path
) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other_disk:
        assert Path(other_disk).stat().st_dev != place.stat().st_dev
        (tmp_path / "store" / VIEWS).symlink_to(other_disk)
        with disk.hold(model) as held:
            assert (held.folder / "model.safetensors").readlink() == place / "model.safetensors"
            assert read(held) == FILES
            with disk.hold(model) as again:
                assert again.folder == held.folder


def test_a_store_that_its_reader_may_not_write_to_names_the_remedy(
    disk: ArtifactStore, model: Artifact, tmp_path: Path
) -> None:
    assert isinstance(disk.objects, DiskStore)
    (tmp_path / "store" / VIEWS).symlink_to("/proc/sys")
    with pytest.raises(ArtifactError, match=r"cannot be shown to its reader .* set LLM_ASSETS_CACHE"):
        disk.verify(model)
