"""Which files of a landing zone count, what their fingerprint follows, and links that lead out of it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_assets.datasets.landing_zone import fingerprint, refuse_linked, source_files
from llm_assets.datasets.mistakes import DatasetError
from tests.unit.datasets.conftest import questions, write_rows


def test_data_files_count_by_name_and_hidden_ones_do_not(zone: Path):
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


def test_a_landing_zone_that_does_not_exist_has_no_files(zone: Path):
    assert source_files(zone / "none") == ()


def test_the_fingerprint_follows_names_and_bytes_and_nothing_else(zone: Path):
    path = write_rows(zone / "rows.jsonl", questions(3))
    first = fingerprint(zone)
    os.utime(path, (1, 1))
    (zone / "notes.md").write_text("not data")
    assert fingerprint(zone) == first
    path.rename(zone / "other.jsonl")
    renamed = fingerprint(zone)
    write_rows(zone / "other.jsonl", questions(4))
    assert len({first, renamed, fingerprint(zone)}) == 3


def test_subfolders_count_where_a_dataset_info_may_name_them(zone: Path):
    (zone / "parts").mkdir()
    write_rows(zone / "parts" / "rows.jsonl", questions(1))
    assert source_files(zone) == ()
    (zone / "dataset_info.json").write_text("{}")
    assert [file.path.name for file in source_files(zone)] == ["dataset_info.json", "rows.jsonl"]


def test_the_data_folder_of_a_hub_repository_counts(zone: Path):
    (zone / "data").mkdir()
    write_rows(zone / "data" / "train.jsonl", questions(1))
    first = fingerprint(zone)
    assert [file.path.name for file in source_files(zone)] == ["train.jsonl"]
    write_rows(zone / "data" / "train.jsonl", questions(2))
    assert fingerprint(zone) != first


def test_a_link_that_leaves_the_landing_zone_is_refused(
    zone: Path, tmp_path: Path, prepared: Callable[..., object]
):
    other = tmp_path / "team-b"
    other.mkdir()
    write_rows(other / "rows.jsonl", questions(3))
    (zone / "rows.jsonl").symlink_to(other / "rows.jsonl")
    with pytest.raises(DatasetError, match=r"rows\.jsonl: leads out of the landing zone"):
        prepared()
    with pytest.raises(DatasetError, match="leads out of the landing zone"):
        fingerprint(zone)


def test_a_link_inside_the_landing_zone_is_followed(zone: Path, prepared: Callable[..., object]):
    write_rows(zone / ".data", questions(3))
    (zone / "rows.jsonl").symlink_to(".data")
    assert prepared().rows == 3  # type: ignore[attr-defined]


def test_a_link_to_nothing_and_a_pipe_are_refused(zone: Path, prepared: Callable[..., object]):
    (zone / "gone.jsonl").symlink_to("nowhere.jsonl")
    with pytest.raises(DatasetError, match=r"gone\.jsonl: does not exist"):
        prepared()
    (zone / "gone.jsonl").unlink()
    os.mkfifo(zone / "pipe.jsonl")
    with pytest.raises(DatasetError, match=r"pipe\.jsonl: is not a regular file"):
        prepared()


def test_a_landing_zone_that_is_a_link_to_another_tenants_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "datasets"
    (root / "team-a" / "support_bot").mkdir(parents=True)
    (root / "team-b").mkdir()
    (root / "team-b" / "support_bot").symlink_to(root / "team-a" / "support_bot")
    refuse_linked(root / "team-a" / "support_bot", root)
    with pytest.raises(DatasetError, match=r"is a link to .*team-a/support_bot; put the files into"):
        refuse_linked(root / "team-b" / "support_bot", root)
