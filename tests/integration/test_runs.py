"""Runs of killed processes are ended, runs of living ones are left alone; settings and locks."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest

from llm_assets.installation.settings import SettingsError, find_settings
from llm_assets.runs import PROCESS_TAG, end_abandoned_runs


@dg.job
def nothing() -> None:
    """A job to record runs of."""


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def started_run(instance: dg.DagsterInstance, process: psutil.Process) -> str:
    tags = {PROCESS_TAG: f"{process.pid}@{process.create_time():.2f}"}
    run = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED, tags=tags)
    return run.run_id


def test_a_run_whose_process_was_killed_is_marked_failed(instance: dg.DagsterInstance) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        run_id = started_run(instance, psutil.Process(process.pid))
        assert end_abandoned_runs(instance) == []
        process.kill()
    assert end_abandoned_runs(instance) == [run_id]
    run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.status == dg.DagsterRunStatus.FAILURE


def test_a_run_that_dagster_launched_is_marked_failed_when_its_worker_is_gone(
    instance: dg.DagsterInstance,
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as worker:
        run = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED)
        instance.report_engine_event(f"Started process for run (pid: {worker.pid}).", run)
        assert end_abandoned_runs(instance) == []
        worker.kill()
    assert end_abandoned_runs(instance) == [run.run_id]


def test_a_run_of_this_process_goes_on(instance: dg.DagsterInstance) -> None:
    started_run(instance, psutil.Process())
    assert end_abandoned_runs(instance) == []


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
        _ = find_settings().ui_port
