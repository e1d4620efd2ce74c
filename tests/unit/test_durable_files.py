"""Files are whole at any moment, whoever writes them and whatever ends the writer."""

import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from resources.durable_files import create_file, remove_file, replace_file, replace_json


def test_a_file_and_its_new_folders_are_their_owner_s_alone(tmp_path: Path) -> None:
    file = tmp_path / "state" / "keys" / "id"
    before = os.umask(0)
    try:
        replace_file(file, "team-a", sync_folder=True)
    finally:
        os.umask(before)
    assert file.read_text() == "team-a"
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (file, file.parent, file.parent.parent)]
    assert modes == [0o600, 0o700, 0o700]


def test_a_failed_write_leaves_the_old_content_and_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "head.json"
    replace_json(file, {"seq": 1})
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(tmp_path / "folder", b"new")
    with pytest.raises(TypeError, match="not JSON serializable"):
        replace_json(file, {"seq": object()})
    assert file.read_text() == '{"seq":1}'
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "head.json"]


def _create(file: Path, number: int) -> bool:
    return create_file(file, f"{number}" * 1000)


def test_of_ten_processes_that_create_a_file_one_does_and_all_find_its_content(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    processes = multiprocessing.get_context("fork").Pool(10)
    made = processes.starmap(_create, [(file, number) for number in range(10)])
    processes.close()  # a `with` would end them by a signal, for which other tests may have left a handler
    processes.join()
    assert sum(made) == 1
    assert file.read_text() == f"{made.index(True)}" * 1000
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_is_gone_already_is_removed_too(tmp_path: Path) -> None:
    replace_file(tmp_path / "segment", b"")
    for _ in range(2):
        remove_file(tmp_path / "segment")
    assert not list(tmp_path.iterdir())
