"""A run as a person sees it in a terminal, and what Ctrl-C does there."""

import signal
from collections.abc import Callable

import dagster as dg
import pytest

from llm_assets.cli.display import FRAMES
from llm_assets.cli.options import INTERRUPTED
from llm_assets.runs import dagster_instance
from tests.conftest import MakeProject, Project
from tests.e2e.projects import RUN, engines_at_work, enter
from tests.terminals import Terminal, in_terminal, is_moving

pytestmark = pytest.mark.engine

TRAINING, MERGING = "support_bot/lora_adapter", "support_bot/merged_model"


def test_progress_moves_in_a_terminal_and_ctrl_c_ends_the_run_canceled_in_one_line(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project()
    enter(project, monkeypatch)
    terminal = interrupted(project, MERGING, lambda terminal: terminal.press(b"\x03"))
    frames = {line.strip()[0] for line in terminal.moving if TRAINING in line}
    assert len(frames) > len(FRAMES) / 2, "the line of the training does not move"
    assert any("step" in line for line in terminal.moving if TRAINING in line)
    interrupted(project, MERGING, lambda terminal: terminal.kill(signal.SIGTERM))


def interrupted(project: Project, step: str, how: Callable[[Terminal], None]) -> Terminal:
    with in_terminal(project.command(*RUN), project.environment) as terminal:
        terminal.wait_until(
            lambda lines: any(is_moving(line) and step in line for line in lines), timeout_s=180
        )
        how(terminal)
        assert terminal.wait(timeout_s=60) == INTERRUPTED, terminal.lines()
    lines = terminal.lines()
    said = " ".join(" ".join(lines).partition("Interrupted: ")[2].split())
    assert said == (
        "the run is canceled. The same command goes on where it stopped. "
        "MLflow and the gateway still run; `llm-assets down` stops them."
    )
    assert b"Traceback" not in terminal.raw
    assert not any(is_moving(line) for line in lines), "a stale line"
    shown = [line.split()[1] for line in lines if line.startswith(("  ✓", "  ✗"))]
    assert shown == ["base_models/tiny", "support_bot/dataset", TRAINING, step]
    with dagster_instance(project.settings) as instance:
        [record] = instance.get_run_records(limit=1)
    assert record.dagster_run.status == dg.DagsterRunStatus.CANCELED
    assert not engines_at_work(project)
    return terminal
