"""`llm-assets engines`, as a person and a script meet it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.engines.sites import Site


def engines(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llm_assets.cli.main", "engines", *arguments],
        env={**os.environ, "LLM_ASSETS_ENGINES": str(folder)},
        capture_output=True,
        text=True,
    )


def test_the_status_says_how_to_install_what_is_missing(tmp_path: Path) -> None:
    shown = engines("status", folder=tmp_path).stdout
    assert "LLaMA-Factory  not installed: llm-assets engines install train" in shown
    assert "vLLM           not installed: llm-assets engines install serve" in shown


def test_the_status_is_json_for_a_script(site: Site) -> None:
    site.install("serve")
    train, serve = json.loads(engines("status", "--json", folder=site.engines).stdout)
    assert not train["installed"]
    assert serve["versions"]["vllm"] == "0.32.0+cpu"
    assert not serve["current"]  # of a lock of tiny wheels


def test_what_cannot_be_installed_is_one_message_and_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    result = engines("install", "train", folder=tmp_path)
    assert result.returncode == 1
    assert "was not made by llm-assets" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("wrong", [["trian"], ["train", "--device", "tpu"]])
def test_an_unknown_engine_or_device_is_refused(wrong: list[str], tmp_path: Path) -> None:
    result = engines("install", *wrong, folder=tmp_path)
    assert result.returncode == 2
    assert list(tmp_path.iterdir()) == []
