"""`llm-assets logs`: which there are, and what stands in one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llm_assets.parts import RUN_LOG
from resources.local.compute import ENGINE_LOG
from resources.waiting import wait_until

FILES = {
    "gateway/envoy.log": "gateway",
    "gateway/keeper.log": "keeper",
    "gateway/collector.log": "collector",
    "mlflow/server.log": "mlflow",
    "dagster/ui.log": "ui",
    f"dagster/storage/4f3c/{RUN_LOG}": "run",
    "serving/team-a/support_bot/logs/vllm--1.log": "vllm:team-a/support_bot",
    f"work/adapters/team-a/support_bot/0123456789abcdef/{ENGINE_LOG}": "engine:adapters/team-a/support_bot",
    f"work/base_models/tiny/{ENGINE_LOG}": "engine:base_models/tiny",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A state folder with every log; each says whose it is."""
    for name, part in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"first\n{part}\n")
    return tmp_path


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "llm_assets.cli.main", "logs", *arguments]


def logs(home: Path, *arguments: str, expect: int = 0) -> str:
    environment = {**os.environ, "LLM_ASSETS_HOME": str(home), "COLUMNS": "40"}
    done = subprocess.run(command(*arguments), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == expect, done.stderr
    return done.stdout + done.stderr


def test_every_log_is_listed_with_its_file(home: Path) -> None:
    listed = dict(line.split() for line in logs(home).splitlines()[1:])
    wanted = {part: str(home / name) for name, part in FILES.items()}
    assert wanted.items() <= listed.items()
    assert listed.keys() - wanted.keys() == {"daemon", "vllm", "engine"}


@pytest.mark.parametrize("part", FILES.values())
def test_a_log_is_printed_by_its_name(home: Path, part: str) -> None:
    assert logs(home, part) == f"first\n{part}\n"
    assert logs(home, part, "--lines", "1") == f"{part}\n"


def test_the_newest_of_several_is_meant_by_their_kind(home: Path) -> None:
    newer = home / "serving" / "team-a" / "support_bot" / "logs" / "vllm--2.log"
    newer.write_text("newer\n")
    os.utime(newer, (2e9, 2e9))
    assert logs(home, "vllm") == logs(home, "vllm:team-a/support_bot") == "newer\n"


def test_a_log_is_followed_as_it_grows(home: Path, tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    environment = {**os.environ, "LLM_ASSETS_HOME": str(home)}
    with shown.open("w") as file:
        process = subprocess.Popen(command("mlflow", "-f", "-n", "0"), env=environment, stdout=file)
    with process:
        with (home / "mlflow" / "server.log").open("a") as log:

            def followed() -> bool:
                print("more", file=log, flush=True)
                return shown.read_text() != ""

            wait_until(followed, what="a line", timeout_s=60)
        process.terminate()
    assert set(shown.read_text().split()) == {"more"}


def test_a_log_that_is_not_there_is_named_with_those_that_are(home: Path, tmp_path: Path) -> None:
    assert "did you mean mlflow?" in logs(home, "mlflwo", expect=2)
    assert logs(tmp_path / "empty") == "There are no logs yet: nothing was started.\n"
