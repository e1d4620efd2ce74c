"""Which folders changed and came to rest, without Dagster."""

import os
from pathlib import Path

from llm_assets.folder_stamps import (
    GONE,
    files_of_dataset,
    files_of_experiments,
    stamp_of,
    stamp_of_experiments,
    stamps,
)
from llm_assets.sensors.watching import Watched, look
from resources.beneath import opened


def stamp(folder: Path) -> str:
    with opened(folder) as landing_zone:
        return stamp_of(files_of_dataset(landing_zone))


def test_a_new_folder_counts_when_it_looks_the_same_twice() -> None:
    first, at_rest = look(Watched(), {"team-a/support_bot": "one"})
    assert at_rest == ()
    _, at_rest = look(first, {"team-a/support_bot": "one"})
    assert at_rest == ("team-a/support_bot",)


def test_a_file_that_is_still_being_written_is_left_for_a_later_tick() -> None:
    watched = Watched()
    for stamp in ("one", "two", "three"):
        watched, at_rest = look(watched, {"team-a/support_bot": stamp})
        assert at_rest == ()
    _, at_rest = look(watched, {"team-a/support_bot": "three"})
    assert at_rest == ("team-a/support_bot",)


def test_what_was_dealt_with_does_not_come_again_until_it_changes() -> None:
    watched, _ = look(Watched(), {"a/m": "one", "b/m": "one"})
    watched, at_rest = look(watched, {"a/m": "one", "b/m": "one"})
    watched = watched.settle(at_rest)
    watched, at_rest = look(watched, {"a/m": "one", "b/m": "one"})
    assert at_rest == ()
    watched, _ = look(watched, {"a/m": "two", "b/m": "one"})
    _, at_rest = look(watched, {"a/m": "two", "b/m": "one"})
    assert at_rest == ("a/m",)


def test_a_folder_that_was_emptied_has_changed_once_and_is_then_forgotten() -> None:
    watched, at_rest = look(Watched(settled={"a/m": "one"}), {})
    assert at_rest == ()
    watched, at_rest = look(watched, {})
    assert at_rest == ("a/m",)
    watched, at_rest = look(watched.settle(at_rest), {})
    assert (watched, at_rest) == (Watched(), ())


def test_the_cursor_keeps_everything() -> None:
    watched = Watched(settled={"a/m": "one"}, moving={"b/m": "two"})
    assert Watched.from_cursor(watched.to_cursor()) == watched
    assert Watched.from_cursor(None) == Watched()


def test_a_stamp_follows_size_time_and_name_and_ignores_other_files(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("{}\n")
    before = stamp(tmp_path)
    (tmp_path / "README.md").write_text("x")
    (tmp_path / ".rows.jsonl.part").write_text("x")
    assert stamp(tmp_path) == before
    os.utime(file, ns=(1, 1))
    assert stamp(tmp_path) != before


def test_an_empty_or_missing_folder_has_no_stamp(tmp_path: Path) -> None:
    assert stamp(tmp_path) == GONE
    assert stamps(tmp_path / "missing", files_of_dataset) == {}


def test_what_an_adapter_records_of_its_experiments_is_what_the_sensor_sees(tmp_path: Path) -> None:
    for tenant in ("team-a", "team-b"):
        (tmp_path / tenant / "support_bot").mkdir(parents=True)
    (tmp_path / "team-a" / "support_bot" / "run.yaml").write_text("learning_rate: 1.0e-4\n")
    (tmp_path / "team-c").mkdir()
    (tmp_path / "team-c" / "support_bot").symlink_to(tmp_path / "team-a" / "support_bot")

    seen = stamps(tmp_path, files_of_experiments)

    assert set(seen) == {"team-a/support_bot"}
    for tenant in ("team-a", "team-b", "team-c", "team-d"):
        recorded = stamp_of_experiments(tmp_path, tenant, "support_bot")
        assert recorded == seen.get(f"{tenant}/support_bot", GONE)
