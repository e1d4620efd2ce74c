"""Journals: killed at every byte, written by several at once, damaged."""

import json
import multiprocessing
import os
import resource
import stat
from pathlib import Path
from typing import Any

import filelock
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resources.gateway import journals
from resources.gateway.errors import GatewayError
from resources.gateway.journals import Journal

EVENTS = st.lists(
    st.dictionaries(st.text(max_size=8), st.none() | st.integers() | st.text(max_size=8), max_size=3),
    max_size=2,
)


@settings(max_examples=5)
@given(EVENTS, EVENTS)
def test_a_writer_killed_at_any_byte_loses_only_what_it_had_not_finished(
    tmp_path_factory: pytest.TempPathFactory, before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> None:
    journal = Journal(tmp_path_factory.mktemp("journal") / "keys.jsonl")
    journal.append(*before)
    whole = len(journal.path.read_bytes()) if before else 0
    journal.append(*after, {"last": True})
    content = journal.path.read_bytes()
    for end in range(whole, len(content) + 1):
        journal.path.write_bytes(content[:end])
        finished = content[:end].count(b"\n")
        expected = [*before, *after, {"last": True}][:finished]
        assert list(journal.events()) == expected
        journal.append({"next": end})
        assert list(journal.events()) == [*expected, {"next": end}]


def test_a_torn_line_longer_than_one_look_back_is_cut_off(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "keys.jsonl")
    journal.append({"first": 1})
    with journal.path.open("ab") as file:
        file.write(b"x" * (3 * journals._LOOK_BACK_BYTES + 7))
    journal.append({"second": 2})
    assert list(journal.events()) == [{"first": 1}, {"second": 2}]


def _append_many(path: Path, writer: int) -> None:
    for number in range(50):
        Journal(path).append({"writer": writer, "number": number, "filler": "x" * 5000})


def test_several_processes_append_at_once_and_every_line_is_whole_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_append_many, args=(path, writer)) for writer in range(2)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
        assert each.exitcode == 0
    events = list(Journal(path).events())
    for writer in range(2):
        assert [event["number"] for event in events if event["writer"] == writer] == list(range(50))


def test_an_event_made_of_those_before_it_misses_none_that_another_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_count_up, args=(path,)) for _ in range(2)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
        assert each.exitcode == 0
    assert [event["count"] for event in Journal(path).events()] == list(range(100))


def _count_up(path: Path) -> None:
    for _ in range(50):
        Journal(path).amend(lambda events: [{"count": sum(1 for _ in events)}])


def test_the_file_and_its_folder_are_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        journal = Journal(tmp_path / "gateway" / "keys.jsonl")
        journal.append({"a": 1})
        journal.compact(lambda events: events)
    finally:
        os.umask(before)
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(journal.path.parent.stat().st_mode) == 0o700


def test_a_journal_that_is_not_there_is_empty(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "none.jsonl")
    assert list(journal.events()) == []
    journal.append()
    assert not journal.path.exists()


@pytest.mark.parametrize("line", [b"{", b"[1]", b"\xff\xfe", b"", b"null"])
def test_a_damaged_line_is_named_and_never_passed_over(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "keys.jsonl"
    path.write_bytes(b'{"a":1}\n' + line + b'\n{"b":2}\n')
    with pytest.raises(GatewayError, match=rf"Line 2 of {path} is damaged .* Restore the file from a backup"):
        list(Journal(path).events())


def test_compaction_replaces_the_file_in_one_step(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "keys.jsonl")
    journal.append({"n": 1}, {"n": 2}, {"n": 3})
    inode = journal.path.stat().st_ino
    with journal.path.open() as reader:
        journal.compact(lambda events: [event for event in events if event["n"] != 2])
        assert len(reader.readlines()) == 3
    assert list(journal.events()) == [{"n": 1}, {"n": 3}]
    assert journal.path.stat().st_ino != inode


def test_a_compaction_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "keys.jsonl")
    journal.append({"n": 1})
    with pytest.raises(ZeroDivisionError):
        journal.compact(lambda events: [{"n": 1 // 0} for _ in events])
    assert list(journal.events()) == [{"n": 1}]


def _append_beyond(path: Path, size_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))
    with pytest.raises(GatewayError, match="cannot be written: File too large"):
        Journal(path).append({"filler": "x" * 2 * size_bytes})


def test_a_disk_that_takes_only_a_part_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "keys.jsonl")
    journal.append({"a": 1})
    before = journal.path.read_bytes()
    writer = multiprocessing.get_context("spawn").Process(target=_append_beyond, args=(journal.path, 4096))
    writer.start()
    writer.join()
    assert writer.exitcode == 0
    assert journal.path.read_bytes() == before


def test_a_lock_that_is_held_for_too_long_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "LOCK_S", 0.1)
    journal = Journal(tmp_path / "keys.jsonl")
    with (
        filelock.FileLock(tmp_path / ".keys.jsonl.lock"),
        pytest.raises(GatewayError, match=r"has held .*\.keys\.jsonl\.lock for over 0\.1 s"),
    ):
        journal.append({"a": 1})


def test_a_value_that_json_does_not_have_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "keys.jsonl")
    journal.append({"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        journal.append({"a": float("nan")})
    assert json.loads(journal.path.read_text()) == {"a": 1}
