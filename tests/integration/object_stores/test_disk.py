"""What is special to a store on a disk: shared inodes, full disks, killed writers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resources.object_stores.disk import DiskStore
from resources.object_stores.objects import UNFINISHED, ObjectStoreError

MakeFile = Callable[[int], Path]


def nothing(_: int) -> None:
    """For transfers whose progress nobody watches."""


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path / "store")


def test_an_upload_from_the_same_disk_and_a_copy_move_no_bytes(store: DiskStore, make_file: MakeFile) -> None:
    source = make_file(1000)
    store.upload(source, "a", nothing)
    store.copy("a", "b/c")
    assert (store.root / "a").samefile(source)
    assert (store.root / "b" / "c").samefile(source)


def test_a_download_shares_nothing_with_the_store(
    store: DiskStore, make_file: MakeFile, tmp_path: Path
) -> None:
    store.upload(make_file(1000), "a", nothing)
    store.download("a", tmp_path / "target", nothing)
    assert not (store.root / "a").samefile(tmp_path / "target")


def test_an_upload_from_another_disk_is_copied(store: DiskStore) -> None:
    memory = Path("/dev/shm") / f"llm-assets-{os.getpid()}"
    memory.write_bytes(os.urandom(3_000_000))
    try:
        sent = store.upload(memory, "a", nothing)
        assert store.read("a") == memory.read_bytes()
        assert store.matches(next(store.list("")), memory) == sent
    finally:
        memory.unlink()


def test_an_object_is_replaced_by_itself_without_a_trace(store: DiskStore, make_file: MakeFile) -> None:
    source = make_file(10)
    store.upload(source, "a", nothing)
    store.upload(source, "a", nothing)
    assert sorted(path.name for path in store.root.rglob("*")) == [f"{UNFINISHED}writes", "a"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_names_the_store_and_the_free_space(small_disk: Path, make_file: MakeFile) -> None:
    store = DiskStore(small_disk / "store")
    full = r"disk of the object store file:.* is full \(0 MiB free\)\. .* free some space"
    with pytest.raises(ObjectStoreError, match=full):
        store.upload(make_file(200_000), "a", nothing)
    with pytest.raises(ObjectStoreError, match=full):
        store.create("b", b"x" * 200_000)
    assert list(store.list("")) == []
    assert [path for path in store.root.rglob("*") if path.is_file()] == []


def test_a_download_to_a_full_disk_names_its_folder(
    store: DiskStore, small_disk: Path, make_file: MakeFile
) -> None:
    store.upload(make_file(200_000), "a", nothing)
    with pytest.raises(ObjectStoreError, match=f"disk of the folder {small_disk} is full"):
        store.download("a", small_disk / "target", nothing)


def test_what_a_killed_writer_left_is_not_listed_and_goes_with_time(tmp_path: Path) -> None:
    folder = tmp_path / "store" / f"{UNFINISHED}writes"
    folder.mkdir(parents=True)
    (folder / f"{UNFINISHED}of-a-killed-writer").write_bytes(b"half")
    fresh = DiskStore(tmp_path / "store")
    assert list(fresh.list("")) == []
    assert fresh.folders("") == []
    fresh.create("a", b"1")
    assert len(list(folder.iterdir())) == 1
    time.sleep(0.02)
    DiskStore(tmp_path / "store", left_over_s=0.01).create("b", b"1")
    assert list(folder.iterdir()) == []


def test_a_writer_killed_at_any_moment_leaves_no_half_object(tmp_path: Path) -> None:
    """A child writes objects for ever, each 1 MiB of one letter; whatever is listed is whole."""
    code = (
        "import itertools, pathlib, sys\n"
        "from resources.object_stores.disk import DiskStore\n"
        "store = DiskStore(pathlib.Path(sys.argv[1]))\n"
        "source = pathlib.Path('/dev/shm') / (pathlib.Path(sys.argv[1]).parent.name + '-source')\n"
        "source.write_bytes(b'x' * 2**20)\n"
        "print('ready', flush=True)\n"
        "for number in itertools.count():\n"
        "    store.upload(source, f'{number % 7}/file', lambda _: None)\n"
        "    store.create(f'created/{number}', b'y' * 2**16)\n"
    )
    root = tmp_path / "store"
    for pause_s in (0.01, 0.05, 0.09, 0.13, 0.2):
        child = subprocess.Popen([sys.executable, "-c", code, root], stdout=subprocess.PIPE)
        assert child.stdout
        child.stdout.readline()
        time.sleep(pause_s)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        for found in DiskStore(root).list(""):
            assert found.size_bytes == (2**16 if found.key.startswith("created/") else 2**20)
    Path("/dev/shm", f"{tmp_path.name}-source").unlink()


def test_a_relative_root_is_refused() -> None:
    with pytest.raises(ObjectStoreError, match="needs an absolute path"):
        DiskStore(Path("artifacts"))
