"""Holding an artifact: fetched once, every byte compared, damage named and mended."""

import errno
import fcntl
import multiprocessing
import os
from pathlib import Path

import pytest

from resources.artifact_store.artifacts import Artifact, ArtifactError, ArtifactFile
from tests.integration.node_cache.conftest import CHUNK, LINE, Node, problem_of, some_bytes

WEIGHTS = some_bytes(3 * CHUNK + 5)
FILES = {"model.safetensors": WEIGHTS, "nested/config.json": b"{}", "empty": b"", "copy.json": b"{}"}


@pytest.fixture
def model(node: Node) -> Artifact:
    return node.source.artifact("v1", FILES)


def test_a_held_artifact_is_whole_read_only_and_holds_nothing_else(node: Node, model: Artifact) -> None:
    with node.hold(model) as held:
        assert problem_of(model, held.folder) is None
        assert {oct(file.stat().st_mode)[-3:] for file in held.folder.rglob("*.*")} == {"400"}
        assert held.lease.is_file()


def test_a_second_server_on_the_node_starts_without_any_download(node: Node, model: Artifact) -> None:
    first = node.fetch(model)
    starts = node.source.starts()
    assert sorted(starts) == sorted({file.sha256 for file in model.files})
    assert node.fetch(model) == first
    assert node.source.starts() == starts


def test_a_cache_on_a_network_disk_is_refused_and_says_where_it_may_lie(
    node: Node, model: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answered as Linux 6.1 answers on NFS 4.2: no exclusive lock on a file that is open for reading only."""

    def on_nfs(descriptor: int, operation: int) -> None:
        if operation & fcntl.LOCK_EX:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(fcntl, "flock", on_nfs)
    with pytest.raises(
        ArtifactError, match=r"lies on a network disk \(NFS\)\. Set LLM_ASSETS_CACHE to a folder"
    ):
        node.fetch(model)


def test_the_same_content_lies_on_the_disk_once(node: Node, model: Artifact) -> None:
    second = node.source.artifact("v2", FILES | {"nested/config.json": b"{'new': 1}"})
    folders = [node.fetch(model), node.fetch(second)]
    inodes = {(folder / "model.safetensors").stat().st_ino for folder in folders}
    assert len(inodes) == 1
    assert len(node.source.starts()) == len({file.sha256 for file in model.files + second.files})
    assert node.cache.used_bytes() == len(WEIGHTS) + len(b"{}") + len(b"{'new': 1}")


def test_two_versions_with_the_same_bytes_are_one_artifact(node: Node, model: Artifact) -> None:
    same = node.source.artifact("v2", FILES)
    assert node.fetch(model) == node.fetch(same)
    assert node.uris() == [model.uri]


@pytest.mark.parametrize("position", [0, len(WEIGHTS) // 2, len(WEIGHTS) - 1])
def test_one_flipped_byte_is_named_and_fetched_again(node: Node, model: Artifact, position: int) -> None:
    folder = node.fetch(model)
    _flip(node.content(model, "model.safetensors"), position)
    assert problem_of(model, folder)
    assert problem_of(model, node.fetch(model)) is None
    assert "the bytes of model.safetensors are not those that were published in the cache" in str(node.said)
    assert node.source.starts().count(model.files[0].sha256) == 2


def test_damage_is_mended_in_every_artifact_that_shares_the_file(node: Node, model: Artifact) -> None:
    second = node.source.artifact("v2", FILES | {"more": b"more"})
    node.fetch(model)
    node.fetch(second)
    _flip(node.content(model, "model.safetensors"), 7)
    node.fetch(model)
    starts = node.source.starts()
    assert problem_of(second, node.fetch(second)) is None
    assert node.source.starts() == starts


def test_a_reader_of_a_held_folder_never_misses_a_file_while_it_is_mended(
    node: Node, model: Artifact
) -> None:
    with node.hold(model) as held:
        over = multiprocessing.get_context("fork").Event()
        watcher = multiprocessing.get_context("fork").Process(
            target=_watch, args=(held.folder / "model.safetensors", over)
        )
        watcher.start()
        for _ in range(30):
            _flip(node.content(model, "model.safetensors"), 7)
            node.fetch(model)
        over.set()
        watcher.join()
        assert watcher.exitcode == 0


def _watch(file: Path, over: "multiprocessing.synchronize.Event") -> None:
    while not over.is_set():
        assert len(file.read_bytes()) == len(WEIGHTS)


@pytest.mark.parametrize("size_bytes", [0, 5, len(WEIGHTS) + 1])
def test_a_file_of_another_length_is_fetched_again(node: Node, model: Artifact, size_bytes: int) -> None:
    node.fetch(model)
    os.truncate(node.content(model, "model.safetensors"), size_bytes)
    assert problem_of(model, node.fetch(model)) is None
    assert f"model.safetensors has {size_bytes} bytes, published were {len(WEIGHTS)}" in str(node.said)


def test_a_file_that_the_disk_cannot_read_is_fetched_again(node: Node, model: Artifact) -> None:
    node.fetch(model)
    content = node.content(model, "empty")
    content.unlink()
    content.symlink_to("/proc/self/mem")  # of size 0, and its first byte is an input/output error
    assert problem_of(model, node.fetch(model)) is None
    assert "empty cannot be read ([Errno 5] Input/output error" in str(node.said)


def test_what_was_deleted_or_put_into_the_folder_is_mended(node: Node, model: Artifact) -> None:
    folder = node.fetch(model)
    (folder / "nested" / "config.json").unlink()
    (folder / "nested").rmdir()
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "other.safetensors").write_bytes(b"a loader would take it for weights")
    starts = node.source.starts()
    assert problem_of(model, node.fetch(model)) is None
    assert node.source.starts() == starts
    assert "other.safetensors is not a file of the artifact" in str(node.said)


def test_bytes_that_arrive_wrong_once_are_fetched_again(node: Node, model: Artifact) -> None:
    whole, wrong = node.source.download(model), {model.files[0].sha256}

    def damaging_once(file: ArtifactFile, part: Path) -> str:
        sha256 = whole(file, part)
        if file.sha256 not in wrong:
            return sha256
        wrong.remove(file.sha256)
        return "0" * 64

    with node.cache.hold(model, damaging_once, node.said.append) as held:
        assert problem_of(model, held.folder) is None
    assert "Fetching it from its start" in str(node.said)


def test_a_store_that_holds_other_bytes_is_refused_and_named(node: Node, model: Artifact) -> None:
    _flip(node.source.folder / "v1" / "model.safetensors", 7)
    with pytest.raises(
        ArtifactError,
        match=r"artifact://models/team-a/support_bot/v1: model\.safetensors came with .* second time",
    ):
        node.fetch(model)
    assert not list((node.cache.root / "artifacts").iterdir())
    _flip(node.source.folder / "v1" / "model.safetensors", 7)
    assert problem_of(model, node.fetch(model)) is None


def test_what_was_half_fetched_is_continued_and_a_wrong_half_is_not(node: Node, model: Artifact) -> None:
    file = model.files[0]
    part = node.cache.root / "coming" / f"{file.sha256}.{file.size_bytes}.part"
    for prefix, starts in ((WEIGHTS[:CHUNK], [CHUNK]), (b"wrong", [5, 0]), (WEIGHTS + b"more", [0])):
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(prefix)
        node.source.log.unlink(missing_ok=True)
        assert problem_of(model, node.fetch(model)) is None
        lines = [line.split() for line in node.source.lines()]
        assert [int(at) for what, sha, at in lines if what == "start" and sha == file.sha256] == starts
        node.cache.prune(to_bytes=0, log=node.said.append)


def test_an_error_of_the_store_is_passed_on_and_the_next_try_fetches_only_the_rest(
    node: Node, model: Artifact
) -> None:
    class StoreError(Exception):
        pass

    whole = node.source.download(model)

    def failing(file: ArtifactFile, part: Path) -> str:
        if file.path == "model.safetensors":
            raise StoreError("503")
        return whole(file, part)

    with pytest.raises(StoreError, match="503"), node.cache.hold(model, failing, node.said.append):
        pass
    node.fetch(model)
    assert len(node.source.starts()) == len(set(node.source.starts()))


@pytest.mark.parametrize("sha256", ["../../../../etc/passwd", "A" * 64, "", "0" * 63, "0" * 64 + "\n"])
def test_a_hash_that_is_none_never_becomes_a_path(node: Node, sha256: str) -> None:
    file = ArtifactFile(path="a", size_bytes=1, sha256=sha256)
    artifact = Artifact(line=LINE, version="v1", files=(file,))
    with pytest.raises(ArtifactError, match="is not a SHA-256 in hex"):
        node.fetch(artifact)


def test_a_damaged_manifest_is_written_anew(node: Node, model: Artifact) -> None:
    node.fetch(model)
    manifest = node.cache.root / "manifests" / model.digest.removeprefix("sha256:")
    altered = manifest.read_text().replace(str(len(WEIGHTS)), "1")
    for text in ("", "{}", "[]", '{"uri": "u", "files": [["a", 1]]}', altered):
        manifest.write_text(text)
        assert problem_of(model, node.fetch(model)) is None
        assert node.uris() == [model.uri]


def test_a_folder_that_cannot_be_made_is_named(node: Node, model: Artifact, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ArtifactError, match=r"cannot be kept at .*/cache: .*Set LLM_ASSETS_CACHE"):
        node.fetch(model)


def _flip(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.chmod(0o644)
    with file.open("r+b") as stream:
        stream.write(content)
    file.chmod(0o444)
