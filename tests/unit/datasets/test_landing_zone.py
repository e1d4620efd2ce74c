"""Which files of a landing zone count, what their fingerprint follows, and links that lead out of it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_assets.datasets import landing_zone
from llm_assets.datasets.landing_zone import MOST_NESTED_FOLDERS, SourceFile, opened_landing_zone
from llm_assets.datasets.limits import Limits
from llm_assets.datasets.mistakes import DatasetError
from tests.unit.datasets.conftest import questions, write_rows


def source_files(zone: Path) -> tuple[SourceFile, ...]:
    with opened_landing_zone(zone, zone, Limits()) as opened:
        return landing_zone.source_files(opened.folder)


def fingerprint(zone: Path) -> str:
    with opened_landing_zone(zone, zone, Limits()) as opened:
        return landing_zone.fingerprint(opened)


def test_data_files_count_by_name_and_hidden_ones_do_not(zone: Path) -> None:
    for name in (
        "b.jsonl",
        "a.CSV",
        ".upload.jsonl",
        "._a.csv",
        "notes.md",
        "README.txt",
        "c.parquet",
        "d.json",
        "e.txt",
    ):
        (zone / name).write_text("x")
    (zone / "folder.json").mkdir()
    assert [file.path.name for file in source_files(zone)] == [
        "a.CSV",
        "b.jsonl",
        "c.parquet",
        "d.json",
        "e.txt",
    ]
    assert source_files(zone)[0].size_bytes == 1


def test_the_fingerprint_follows_names_and_bytes_and_nothing_else(zone: Path) -> None:
    path = write_rows(zone / "rows.jsonl", questions(3))
    first = fingerprint(zone)
    os.utime(path, (1, 1))
    (zone / "notes.md").write_text("not data")
    assert fingerprint(zone) == first
    path.rename(zone / "other.jsonl")
    renamed = fingerprint(zone)
    write_rows(zone / "other.jsonl", questions(4))
    assert len({first, renamed, fingerprint(zone)}) == 3


def test_subfolders_count_where_a_dataset_info_may_name_them(zone: Path) -> None:
    (zone / "parts").mkdir()
    write_rows(zone / "parts" / "rows.jsonl", questions(1))
    assert source_files(zone) == ()
    (zone / "dataset_info.json").write_text("{}")
    assert [file.path.name for file in source_files(zone)] == ["dataset_info.json", "rows.jsonl"]


def test_the_data_folder_of_a_hub_repository_counts(zone: Path) -> None:
    (zone / "data").mkdir()
    write_rows(zone / "data" / "train.jsonl", questions(1))
    first = fingerprint(zone)
    assert [file.path.name for file in source_files(zone)] == ["train.jsonl"]
    write_rows(zone / "data" / "train.jsonl", questions(2))
    assert fingerprint(zone) != first


@pytest.mark.parametrize("target", ["../../team-b/rows.jsonl", ".data", "nowhere.jsonl"])
def test_a_link_is_not_followed_wherever_it_leads(
    zone: Path, tmp_path: Path, prepared: Callable[..., object], target: str
) -> None:
    (tmp_path / "team-b").mkdir()
    write_rows(tmp_path / "team-b" / "rows.jsonl", questions(3))
    write_rows(zone / ".data", questions(3))
    (zone / "rows.jsonl").symlink_to(target)
    for read in (prepared, lambda: fingerprint(zone)):
        with pytest.raises(DatasetError, match=r"rows\.jsonl: is a symbolic link, and none is followed"):
            read()


def test_a_folder_that_is_a_link_is_not_followed(
    zone: Path, tmp_path: Path, prepared: Callable[..., object]
) -> None:
    (tmp_path / "team-b").mkdir()
    write_rows(tmp_path / "team-b" / "rows.jsonl", questions(3))
    (zone / "data").symlink_to(tmp_path / "team-b")
    with pytest.raises(DatasetError, match="/data: is a symbolic link, and none is followed"):
        prepared()
    write_rows(zone / "rows.jsonl", questions(1))
    (zone / "dataset_info.json").write_text(
        '{"a": {"file_name": "data"}, "b": {"file_name": "data/rows.jsonl"}}'
    )
    with pytest.raises(DatasetError, match="/data: is a symbolic link, and none is followed"):
        prepared()


def test_a_pipe_is_refused_without_waiting_for_its_writer(
    zone: Path, prepared: Callable[..., object]
) -> None:
    os.mkfifo(zone / "pipe.jsonl")
    with pytest.raises(DatasetError, match=r"pipe\.jsonl: is not a regular file"):
        prepared()


def test_a_landing_zone_that_is_a_link_to_another_tenants_is_refused(tmp_path: Path) -> None:
    root, linked = tmp_path / "datasets", tmp_path / "linked"
    (root / "team-a" / "support_bot").mkdir(parents=True)
    (root / "team-b").mkdir()
    (root / "team-b" / "support_bot").symlink_to(root / "team-a" / "support_bot")
    (root / "team-c").symlink_to(root / "team-a")
    linked.symlink_to(root)  # the operator's own
    for folder in (root, linked):
        with opened_landing_zone(folder / "team-a" / "support_bot", folder, Limits()) as zone:
            assert zone.path == folder / "team-a" / "support_bot"
        for tenant, link in (("team-b", "team-b/support_bot"), ("team-c", "team-c")):
            with (
                pytest.raises(
                    DatasetError, match=rf"{link}: is a symbolic link, and none is followed here; make"
                ),
                opened_landing_zone(folder / tenant / "support_bot", folder, Limits()),
            ):
                pass


def test_folders_deep_within_each_other_are_refused(zone: Path, prepared: Callable[..., object]) -> None:
    deep = zone.joinpath(*["a"] * (MOST_NESTED_FOLDERS + 1))
    deep.mkdir(parents=True)
    (zone / "dataset_info.json").write_text('{"a": {"file_name": "rows.jsonl"}}')
    write_rows(zone / "rows.jsonl", questions(1))
    with pytest.raises(DatasetError, match=f"lies deeper than {MOST_NESTED_FOLDERS} folders"):
        prepared()
