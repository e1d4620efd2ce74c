"""Commands that go on beside another one: shown with it, and ended with it."""

import io
import time
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from llm_assets.cli.beside import Beside, BesideError
from llm_assets.cli.display import Display
from resources.waiting import wait_until


@pytest.fixture
def display() -> Display:
    return Display(Console(file=io.StringIO(), width=200, soft_wrap=True))


def shown(display: Display) -> str:
    file = display.console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_what_it_says_is_shown_and_given_back(display: Display) -> None:
    with Beside(display) as beside:
        version = beside.command("the version", "--version")
        version.start()
        version.wait_for_a_word()
        assert version.result().startswith("llm-assets ")
    said, ended = shown(display).splitlines()
    assert said.startswith("    the version: llm-assets ")
    assert ended.startswith("  ✓ the version ")


def test_one_that_fails_says_why(display: Display) -> None:
    with Beside(display) as beside:
        wrong = beside.command("logs", "logs", "of-nothing")
        wrong.start()
        with pytest.raises(BesideError, match="There is no log 'of-nothing'"):
            wrong.result()
    assert "  ✗ logs" in shown(display)


def test_it_ends_with_the_command_that_started_it(
    display: Display, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "mlflow" / "server.log"
    log.parent.mkdir()
    log.write_text("a line\n")
    monkeypatch.setenv("LLM_ASSETS_HOME", str(tmp_path))
    children: list[psutil.Process] = []

    def interrupted() -> None:
        with Beside(display) as beside:
            endless = beside.command("mlflow", "logs", "mlflow", "--follow")
            endless.start()
            endless.wait_for_a_word()
            children.extend(each for each in psutil.Process().children() if "tail" in each.name())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    [child] = children
    wait_until(lambda: not child.is_running(), what="its end", timeout_s=10)
    wait_until(lambda: "  ✗ mlflow" in shown(display), what="its line", timeout_s=10)


def test_one_that_was_never_started_needs_no_end(display: Display) -> None:
    started = time.monotonic()
    with Beside(display) as beside:
        beside.command("nothing", "--version")
    assert time.monotonic() - started < 1
