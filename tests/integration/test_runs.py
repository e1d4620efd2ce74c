"""Runs of killed processes are ended, runs of living ones are left alone; settings and locks."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run_iterator  # what a launched run goes through

from llm_assets.executor import executor_of
from llm_assets.installation.files import SettingsError
from llm_assets.installation.settings import find_settings
from llm_assets.runs import end_abandoned_runs
from resources.local.state import LocalState


@dg.job
def nothing() -> None:
    """A job to record runs of."""


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def state(tmp_path: Path) -> LocalState:
    return LocalState(folder=tmp_path)


HOLDER = """
import sys
from pathlib import Path
from resources.local.state import LocalState
with LocalState(folder=Path(sys.argv[1])).executing(sys.argv[2]):
    print("executes", flush=True)
    input()
"""


def test_a_run_whose_process_was_killed_is_marked_failed(
    instance: dg.DagsterInstance, state: LocalState
) -> None:
    run = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, state.folder, run.run_id],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "executes\n"
        assert end_abandoned_runs(instance, state) == []
        process.kill()
    assert end_abandoned_runs(instance, state) == [run.run_id]
    ended = instance.get_run_by_id(run.run_id)
    assert ended is not None
    assert ended.status == dg.DagsterRunStatus.FAILURE


def test_a_run_that_is_not_known_here_is_left_alone(instance: dg.DagsterInstance, state: LocalState) -> None:
    """As one of another machine is, which has a state of its own."""
    instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED)
    assert end_abandoned_runs(instance, state) == []


def test_whoever_launches_a_run_its_executor_says_that_it_is_alive(
    instance: dg.DagsterInstance, state: LocalState
) -> None:
    found: list[bool] = []

    @dg.op
    def look(context: dg.OpExecutionContext) -> None:
        found.append((state.folder / "runs" / f"{context.run_id}.lock").exists())

    @dg.job(executor_def=executor_of(state))
    def looking() -> None:
        look()

    run = instance.create_run_for_job(looking)
    kinds = [event.event_type for event in execute_run_iterator(InMemoryJob(looking), run, instance)]
    assert dg.DagsterEventType.RUN_SUCCESS in kinds
    assert found == [True]
    assert list((state.folder / "runs").iterdir()) == []


def test_outside_of_a_project_the_settings_say_where_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLM_ASSETS_ROOT", raising=False)
    with pytest.raises(SettingsError, match="lies in no llm-assets project"):
        find_settings()


def test_a_port_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_ASSETS_UI_PORT", "eighty")
    with pytest.raises(SettingsError, match="LLM_ASSETS_UI_PORT='eighty' is not a port"):
        find_settings()
