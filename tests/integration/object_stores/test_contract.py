"""What every object store must do, against each kind: a disk and three real sockets (see conftest.py)."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from resources.object_stores.chunks import CHUNK_BYTES, STREAMED_BYTES
from resources.object_stores.objects import ObjectMissing, ObjectStore, ObjectStoreError, Transferred
from resources.object_stores.opening import open_object_store

MakeFile = Callable[[int], Path]
MIB = 1024 * 1024
NAMES = ("a b.txt", "ü/ß–漢字.bin", "1+1=2&x?y#z%20.json", "with;semicolon,comma", "deep/er/and/deeper/still")


def nothing(_: int) -> None:
    """For transfers whose progress nobody watches."""


def of(path: Path) -> Transferred:
    content = path.read_bytes()
    return Transferred(size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def test_what_is_uploaded_is_listed_in_order_with_its_size(store: ObjectStore, make_file: MakeFile) -> None:
    for key in ("b/2", "a/2/x", "b/1", "a-1", "a/1"):
        store.upload(make_file(3), key, nothing)
    assert [(found.key, found.size_bytes) for found in store.list("")] == [
        ("a-1", 3),
        ("a/1", 3),
        ("a/2/x", 3),
        ("b/1", 3),
        ("b/2", 3),
    ]
    assert [found.key for found in store.list("a/")] == ["a/1", "a/2/x"]
    assert list(store.list("nowhere/")) == []


def test_folders_are_the_names_directly_below(store: ObjectStore, make_file: MakeFile) -> None:
    for key in ("b/2", "a/2/x", "a/3/y", "file"):
        store.upload(make_file(1), key, nothing)
    assert store.folders("") == ["a", "b"]
    assert store.folders("a/") == ["2", "3"]
    assert store.folders("nowhere/") == []


def test_a_folder_ends_with_its_last_object(store: ObjectStore) -> None:
    store.create("a/b/c", b"1")
    store.delete("a/b/c")
    assert store.folders("") == []


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/./b", "a/.unfinished-x", "a\0"])
def test_a_key_that_leaves_the_store_or_looks_unfinished_is_refused(store: ObjectStore, key: str) -> None:
    with pytest.raises(ObjectStoreError, match="takes no key"):
        store.create(key, b"")


def test_a_prefix_that_is_no_folder_is_refused(store: ObjectStore) -> None:
    with pytest.raises(ObjectStoreError, match="lists below"):
        list(store.list("a"))


@pytest.mark.parametrize("key", NAMES)
def test_a_key_may_hold_any_letters(
    store: ObjectStore, make_file: MakeFile, tmp_path: Path, key: str
) -> None:
    source = make_file(1000)
    store.upload(source, key, nothing)
    assert [found.key for found in store.list("")] == [key]
    assert store.read(key) == source.read_bytes()
    assert store.download(key, tmp_path / "target", nothing) == of(source)
    store.copy(key, f"copied/{key}")
    assert store.read(f"copied/{key}") == source.read_bytes()
    store.delete(key)
    assert [found.key for found in store.list("")] == [f"copied/{key}"]


@pytest.mark.parametrize("size_bytes", [0, 1, 5 * MIB, STREAMED_BYTES + CHUNK_BYTES + 1])
def test_a_file_comes_back_as_it_went(
    store: ObjectStore, make_file: MakeFile, tmp_path: Path, size_bytes: int
) -> None:
    source = make_file(size_bytes)
    expected, sent, received = of(source), [0], [0]
    there = store.upload(source, "a/file", lambda moved: sent.append(moved))
    back = store.download("a/file", tmp_path / "target", lambda moved: received.append(moved))
    assert there == back == expected == of(tmp_path / "target")
    assert sum(sent) == sum(received) == size_bytes


def test_an_upload_replaces_what_is_there(store: ObjectStore, make_file: MakeFile) -> None:
    first, second = make_file(9 * MIB), make_file(10)
    wanted = second.read_bytes()
    store.upload(first, "file", nothing)
    store.upload(second, "file", nothing)
    assert store.read("file") == wanted
    assert [found.size_bytes for found in store.list("")] == [10]


@pytest.mark.parametrize("there", [1, 5 * MIB, 20 * MIB])
def test_a_download_goes_on_behind_what_a_killed_one_left(
    store: ObjectStore, make_file: MakeFile, tmp_path: Path, there: int
) -> None:
    source, target = make_file(20 * MIB), tmp_path / "target"
    content, expected, received = source.read_bytes(), of(source), [0]
    store.upload(source, "file", nothing)
    target.write_bytes(content[:there])
    assert store.download("file", target, lambda moved: received.append(moved)) == expected
    assert sum(received) == len(content) - there
    assert target.read_bytes() == content


def test_what_was_left_of_another_object_shows_in_the_hash(
    store: ObjectStore, make_file: MakeFile, tmp_path: Path
) -> None:
    store.upload(make_file(100), "file", nothing)
    (tmp_path / "target").write_bytes(b"of another")
    back = store.download("file", tmp_path / "target", nothing)
    assert back == of(tmp_path / "target")
    assert back.sha256 != hashlib.sha256(store.read("file")).hexdigest()


def test_what_is_not_there_is_named_as_missing(store: ObjectStore, tmp_path: Path) -> None:
    for ask in (
        lambda: store.read("no/file"),
        lambda: store.download("no/file", tmp_path / "target", nothing),
        lambda: store.copy("no/file", "copy"),
    ):
        with pytest.raises(ObjectMissing, match="holds no object 'no/file'"):
            ask()
    assert list(store.list("")) == []


def test_deleting_what_is_gone_succeeds(store: ObjectStore) -> None:
    store.create("a", b"1")
    store.delete("a")
    store.delete("a")
    assert list(store.list("")) == []


def test_only_the_first_of_two_creates_an_object(store: ObjectStore) -> None:
    assert store.create("manifest.json", b"first")
    assert not store.create("manifest.json", b"second")
    assert store.read("manifest.json") == b"first"


def test_of_ten_that_create_at_once_one_wins(store: ObjectStore) -> None:
    contents = [f"writer {number}".encode() for number in range(10)]
    for race in range(3):
        key = f"race-{race}/manifest.json"
        with ThreadPoolExecutor(10) as threads:
            won = list(threads.map(lambda content, key=key: store.create(key, content), contents))
        assert won.count(True) == 1
        assert store.read(key) == contents[won.index(True)]
    assert store.folders("") == ["race-0", "race-1", "race-2"]
    assert len(list(store.list(""))) == 3


@pytest.mark.parametrize("size_bytes", [0, 1000, 20 * MIB])
def test_a_copy_holds_the_same_bytes_and_outlives_its_source(
    store: ObjectStore, make_file: MakeFile, tmp_path: Path, size_bytes: int
) -> None:
    source = make_file(size_bytes)
    expected = store.upload(source, "a", nothing)
    store.copy("a", "b/c")
    store.delete("a")
    assert store.download("b/c", tmp_path / "target", nothing) == expected
    assert [found.key for found in store.list("")] == ["b/c"]


@pytest.mark.parametrize("size_bytes", [0, 1000, 20 * MIB])
def test_a_stored_object_is_known_by_its_own_checksum(
    store: ObjectStore, make_file: MakeFile, tmp_path: Path, size_bytes: int
) -> None:
    source = make_file(size_bytes)
    kept, other = tmp_path / "kept", make_file(size_bytes)
    kept.write_bytes(source.read_bytes())
    expected = store.upload(source, "a", nothing)
    stored = next(store.list(""))
    assert store.matches(stored, kept) == expected
    if size_bytes:
        assert store.matches(stored, other) is None
    assert store.matches(stored, make_file(size_bytes + 1)) is None


def test_a_thousand_small_files_go_and_come(store: ObjectStore, tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / f"{number:04}").write_bytes(os.urandom(100))
    names = [f"{number:04}" for number in range(1000)]
    wanted = {name: (tmp_path / name).read_bytes() for name in names}
    with ThreadPoolExecutor(8) as threads:
        sent = list(threads.map(lambda name: store.upload(tmp_path / name, f"many/{name}", nothing), names))
        back = list(
            threads.map(lambda n: store.download(f"many/{n}", tmp_path / f"{n}.back", nothing), names)
        )
    assert sent == back
    assert [found.key for found in store.list("many/")] == [f"many/{name}" for name in names]
    assert all((tmp_path / f"{name}.back").read_bytes() == wanted[name] for name in names)


def test_two_stores_in_one_place_see_the_same(store: ObjectStore, url: str) -> None:
    store.create("a", b"1")
    assert open_object_store(f"{url}/").read("a") == b"1"
    assert open_object_store(url).url == url
