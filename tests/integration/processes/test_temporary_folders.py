"""Temporary folders: short, private, and gone afterwards, wherever the state folder and TMPDIR are."""

import fcntl
import os
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from resources.processes import temporary_folders
from resources.processes.local_processes import LocalProcesses, ProcessError
from resources.processes.temporary_folders import (
    ADDRESS_BYTES,
    LINK,
    LONGEST_BASE,
    ORDER_PREFIX,
    PREFIX,
    SOCKETS_BELOW,
    STALE_S,
    TemporaryFolderError,
    base_folder,
    linked_folder,
)


def long_folder(parent: Path, length: int) -> Path:
    """A folder whose path has at least that many bytes."""
    folder = parent
    while len(str(folder)) < length:
        folder /= "x" * min(50, max(1, length - len(str(folder)) - 1))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose own path is as short as can be."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        yield Path(folder)


def listen(address: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(address))
        listening.listen()


@pytest.mark.parametrize("name", SOCKETS_BELOW.values(), ids=SOCKETS_BELOW.keys())
@pytest.mark.parametrize("length", [20, 120, 3000])
def test_every_socket_of_a_work_order_opens_however_long_its_folders_path_is(
    name: str, length: int, tmp_path: Path
) -> None:
    target = long_folder(tmp_path, length)
    with linked_folder(target) as folder:
        address = Path(f"{folder}{name}")
        assert len(str(address)) <= ADDRESS_BYTES
        address.parent.mkdir(exist_ok=True)
        listen(address)
        assert list(target.iterdir())  # it lies on the order's disk
    assert not folder.parent.exists()
    assert target.exists()


@pytest.mark.parametrize("length", [LONGEST_BASE, LONGEST_BASE + 1, 300])
def test_a_tmpdir_is_used_as_long_as_every_socket_below_it_fits(
    length: int, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = long_folder(short, length)
    monkeypatch.setenv("TMPDIR", str(given))
    with linked_folder(short) as folder:
        assert folder.is_relative_to(given) == (length == LONGEST_BASE)
        for name in SOCKETS_BELOW.values():
            assert len(f"{folder}{name}") <= ADDRESS_BYTES


def test_what_is_started_from_a_process_of_ours_does_not_lie_in_that_ones_folder(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = short / f"{PREFIX}12345678" / "t"
    ours.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(ours))
    assert base_folder() == short


def test_a_folder_is_its_owners_alone_and_no_link_of_another(tmp_path: Path) -> None:
    with linked_folder(tmp_path) as folder:
        found = folder.parent.lstat()
        assert stat.S_ISDIR(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o700
        assert found.st_uid == os.geteuid()
        assert folder.name == LINK
        assert folder.readlink() == tmp_path


@pytest.mark.parametrize(
    ("mode", "usable"), [(0o700, True), (0o755, True), (0o1777, True), (0o777, False), (0o770, False)]
)
def test_a_folder_where_others_could_rename_ours_is_not_used(
    mode: int, usable: bool, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = short / "s"
    shared.mkdir()
    shared.chmod(mode)
    monkeypatch.setenv("TMPDIR", str(shared))
    assert (base_folder() == shared) == usable


def test_without_a_usable_folder_each_is_named_with_its_fault_and_the_remedy(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = long_folder(short, 60)
    file = short / "f"
    file.touch()
    monkeypatch.setenv("TMPDIR", str(far))
    monkeypatch.setattr(temporary_folders, "FALLBACKS", (str(file), str(short / "absent")))
    with pytest.raises(TemporaryFolderError) as caught:
        base_folder()
    said = str(caught.value)
    assert f"{far} has {len(str(far))} bytes" in said
    assert f"{file} is not a folder" in said
    assert f"{short / 'absent'} cannot be read (No such file or directory)" in said
    assert f"Set TMPDIR to a folder that you can write to and whose path has at most {LONGEST_BASE}" in said
    with pytest.raises(
        ProcessError, match=r"watcher could not be started. There is no folder for temporary files"
    ):
        LocalProcesses(short / "records").start(
            "watcher", command=("true",), env={}, log=short / "log", attributes={}
        )


def test_what_a_killed_user_left_is_removed_by_the_next_and_nothing_else(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(short))
    kinds = ("abandoned", "young", "in-use", "link")
    left = {kind: short / f"{ORDER_PREFIX}{kind}" for kind in kinds}
    elsewhere = short / "elsewhere"
    elsewhere.mkdir()
    for kind in ("abandoned", "young", "in-use"):
        left[kind].mkdir()
    left["link"].symlink_to(elsewhere)
    long_ago = time.time() - 2 * STALE_S
    for kind in ("abandoned", "in-use"):
        (left[kind] / LINK).symlink_to(elsewhere)
        os.utime(left[kind], (long_ago, long_ago))
    (elsewhere / "kept").touch()
    descriptor = os.open(left["in-use"], os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with linked_folder(short):
        pass
    os.close(descriptor)
    assert {kind for kind in kinds if left[kind].is_symlink() or left[kind].exists()} == {
        "young",
        "in-use",
        "link",
    }
    assert (elsewhere / "kept").exists()


def test_a_detached_process_has_a_short_tmpdir_whatever_its_records_folder_and_tmpdir_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = long_folder(tmp_path, 300)
    monkeypatch.setenv("TMPDIR", str(home))
    processes = LocalProcesses(home / "processes")
    opens = (
        "import multiprocessing.connection as c, pathlib, tempfile, time\n"
        "listener = c.Listener(family='AF_UNIX')\n"
        "print(tempfile.gettempdir(), listener.address, flush=True)\n"
        "time.sleep(60)\n"
    )
    record = processes.start(
        "x" * 63, command=(sys.executable, "-c", opens), env={}, log=home / "log", attributes={}
    )
    try:
        deadline = time.monotonic() + 30
        while not (said := record.log.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        folder, address = said.split()
        assert Path(folder) == record.temporary_folder
        assert stat.S_IMODE(record.temporary_folder.stat().st_mode) == 0o700
        assert address.startswith(folder)
    finally:
        processes.stop(record.name)
    assert not record.temporary_folder.exists()
