"""`llm-assets init`, and what `demo` does in an empty folder."""

from pathlib import Path

import pytest

from llm_assets.catalog.loading import load_catalog
from llm_assets.cli.init import IGNORED_LINES, begin_in_an_empty_folder, init, lay_out
from llm_assets.installation.files import SettingsError
from llm_assets.installation.settings import find_settings
from tests.conftest import ROOT

LAID_OUT = [
    "catalog",
    "dagster.yaml",
    "workspace.yaml",
    "deployments/monitoring",
    "deployments/systemd",
    ".gitignore",
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("ROOT", "CATALOG", "HOME"):
        monkeypatch.delenv(f"LLM_ASSETS_{name}", raising=False)
    return tmp_path


def test_a_folder_becomes_a_project_and_each_thing_written_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init()
    assert capsys.readouterr().out.splitlines() == [f"  wrote  {name}" for name in LAID_OUT]
    settings = find_settings()
    assert settings.root == folder
    assert load_catalog(settings.catalog).models == load_catalog(ROOT / "catalog").models
    assert {"/.env", "/.llm-assets/"} <= set((folder / ".gitignore").read_text().splitlines())
    assert set(IGNORED_LINES) <= set((ROOT / ".gitignore").read_text().splitlines())


def test_what_is_there_is_kept_as_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "catalog").mkdir()
    (folder / "dagster.yaml").write_text("# mine\n")
    init()
    said = capsys.readouterr().out
    assert "  kept   catalog\n  kept   dagster.yaml\n  wrote  workspace.yaml\n" in said
    assert list((folder / "catalog").iterdir()) == []
    assert (folder / "dagster.yaml").read_text() == "# mine\n"


def test_another_folder_is_made(folder: Path) -> None:
    init(folder / "new" / "models")
    assert sorted(path.name for path in (folder / "new" / "models").iterdir()) == sorted(
        {name.split("/")[0] for name in LAID_OUT}
    )


def test_outside_of_a_project_a_command_says_how_to_make_one() -> None:
    with pytest.raises(
        SettingsError, match=r"lies in no llm-assets project .*`llm-assets init` makes it one"
    ):
        find_settings()


def test_the_demo_begins_a_project_in_an_empty_folder(folder: Path) -> None:
    (folder / ".venv").mkdir()
    begin_in_an_empty_folder()
    assert find_settings().root == folder


def test_the_demo_writes_nothing_beside_what_is_there(folder: Path) -> None:
    (folder / "thesis.txt").touch()
    begin_in_an_empty_folder()
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_the_demo_makes_no_project_within_a_project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list(lay_out(folder))
    (folder / "notes").mkdir()
    monkeypatch.chdir(folder / "notes")
    begin_in_an_empty_folder()
    assert list((folder / "notes").iterdir()) == []
