"""`llm-assets cache status | verify | prune`, and the settings that say where the cache is and how large."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llm_assets.datasets.limits import GIB
from llm_assets.installation.files import SettingsError
from llm_assets.installation.settings import CACHE_GIB, Settings
from resources.artifact_store.artifacts import Artifact
from resources.node_cache import NodeCache
from tests.conftest import ROOT, Project
from tests.integration.node_cache.conftest import Node, Source, some_bytes

SIZE = 3 * 2**20


class Command:
    """`llm-assets cache …` without the other commands, whose imports take seconds."""

    def __init__(self, root: Path) -> None:
        (root / "catalog").mkdir()
        self.environment = os.environ | {
            "LLM_ASSETS_ROOT": str(root),
            "LLM_ASSETS_CACHE": str(root / "nvme"),
            "LLM_ASSETS_CACHE_GIB": "0.5",
            "COLUMNS": "200",
        }

    def run(self, *arguments: str, expect: int = 0) -> str:
        """Everything that it printed."""
        done = subprocess.run(
            [sys.executable, "-c", "from llm_assets.cli import cache; cache.app()", *arguments],
            env=self.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == expect, done.stdout
        return done.stdout


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    (tmp_path / "source").mkdir()
    kept = NodeCache(root=tmp_path / "nvme", limit_bytes=GIB // 2)
    return Node(cache=kept, source=Source(folder=tmp_path / "source"), said=[])


@pytest.fixture
def models(node: Node) -> list[Artifact]:
    """Two that share a file."""
    made = [
        node.source.artifact(f"v{number}", {"weights": some_bytes(SIZE, number), "config": b"{}"})
        for number in (1, 2)
    ]
    for artifact in made:
        node.fetch(artifact)
    return made


def test_an_empty_cache_is_said_and_not_made(command: Command, tmp_path: Path) -> None:
    assert "nvme: 0.0 MiB of 512.0 MiB, 0 artifacts" in command.run("status")
    assert not (tmp_path / "nvme").exists()
    assert "All 0.0 MiB of 0 artifacts" in command.run("verify")


def test_status_says_what_lies_there_how_large_and_what_is_in_use(
    command: Command, node: Node, models: list[Artifact]
) -> None:
    with node.hold(models[0]):
        shown = command.run("status")
        told = json.loads(command.run("status", "--json"))
    assert "nvme: 6.0 MiB of 512.0 MiB, 2 artifacts" in shown
    lines = [line.split() for line in shown.splitlines()[1:]]
    assert [(line[0], line[-1]) for line in lines] == [("3.0", models[1].uri), ("3.0", models[0].uri)]
    assert "free" in shown.splitlines()[1]
    assert "in use" in shown.splitlines()[2]
    assert {name: told[name] for name in ("root", "limit_bytes", "used_bytes")} == {
        "root": str(node.cache.root),
        "limit_bytes": GIB // 2,
        "used_bytes": 2 * SIZE + 2,
    }
    rows = {row["uri"]: row for row in told["artifacts"]}
    assert [rows[artifact.uri]["held"] for artifact in models] == [True, False]
    assert [rows[artifact.uri]["digest"] for artifact in models] == [artifact.digest for artifact in models]
    assert {(row["whole"], row["size_bytes"], row["files"]) for row in rows.values()} == {(True, SIZE + 2, 2)}


def test_verify_names_every_damage_and_the_next_use_mends_it(
    command: Command, node: Node, models: list[Artifact]
) -> None:
    assert "All 6.0 MiB of 2 artifacts are as they were published" in command.run("verify")
    for path in ("weights", "config"):
        content = node.content(models[0], path)
        content.chmod(0o644)
        content.write_bytes(content.read_bytes()[:-1] + b"?")
    digest = models[1].digest.removeprefix("sha256:")
    (node.cache.root / "artifacts" / digest / "foreign").touch()
    printed = command.run("verify", expect=1)
    assert f"are not those that were published. It is weights of {models[0].uri} (" in printed
    assert all(f"config of {artifact.uri}" in printed for artifact in models)
    assert f"{models[1].uri}: foreign is not a file of the artifact" in printed
    assert "3 damaged" in printed
    for artifact in models:
        node.fetch(artifact)
    command.run("verify")


def test_verify_names_an_artifact_without_its_manifest(
    command: Command, node: Node, models: list[Artifact]
) -> None:
    (node.cache.root / "manifests" / models[0].digest.removeprefix("sha256:")).write_text("{")
    printed = command.run("verify", expect=1)
    assert f"{models[0].digest.removeprefix('sha256:')} has no manifest, or a damaged one" in printed


def test_prune_evicts_the_least_recently_used_and_says_what_it_could_not(
    command: Command, node: Node, models: list[Artifact]
) -> None:
    printed = command.run("prune", "--to", str(SIZE * 1.5 / GIB))
    assert f"Evicted {models[0].uri}" in printed
    assert f"3.0 MiB are left at {node.cache.root}." in printed
    with node.hold(models[1]):
        assert f"These are in use: {models[1].uri}." in command.run("prune", "--to", "0", expect=1)
    assert "0.0 MiB are left" in command.run("prune", "--to", "0")


@pytest.mark.parametrize("size", ["", "much", "0", "-1", "nan", "inf", "1,5"])
def test_a_limit_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    monkeypatch.setenv("LLM_ASSETS_CACHE_GIB", size)
    with pytest.raises(
        SettingsError, match=f"LLM_ASSETS_CACHE_GIB={size!r} is not a size; a positive number.*{CACHE_GIB} is"
    ):
        Settings(root=tmp_path)


@pytest.mark.parametrize("folder", ["", " ", str(ROOT / "LICENSE")])
def test_a_folder_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.setenv("LLM_ASSETS_CACHE", folder)
    with pytest.raises(SettingsError, match=f"LLM_ASSETS_CACHE={folder!r} is not a folder"):
        Settings(root=tmp_path)


def test_the_command_line_has_the_command_and_explains_a_wrong_setting(tmp_path: Path) -> None:
    project = Project(tmp_path)
    (tmp_path / "catalog").mkdir()
    project.environment["LLM_ASSETS_CACHE_GIB"] = "much"
    assert "LLM_ASSETS_CACHE_GIB='much' is not a size" in project.run("cache", "status", expect=2)


def test_by_default_the_cache_lies_below_the_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("LLM_ASSETS_CACHE", "LLM_ASSETS_CACHE_GIB"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("LLM_ASSETS_STORE", "gs://models")
    settings = Settings(root=tmp_path, home=tmp_path / "home")
    assert settings.artifact_cache == tmp_path / "home" / "cache" / "artifacts"
    assert settings.artifact_cache_bytes == CACHE_GIB * GIB
    monkeypatch.setenv("LLM_ASSETS_CACHE_GIB", "1.5")
    assert Settings(root=tmp_path).artifact_cache_bytes == 1.5 * GIB
