"""An interrupted run is canceled, wherever the interruption finds it, and never a failure first."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from llm_assets.cancellation import ENDING, RunCanceled, canceled_when_interrupted
from llm_assets.runs import new_run_id

Status = dg.DagsterRunStatus


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as temporary:
        yield temporary


def executed(instance: dg.DagsterInstance, number: signal.Signals, *, moment: str) -> str:
    """Executes a job of two steps that is interrupted in the first one; its run's id."""

    @dg.op
    def first() -> int:
        os.kill(os.getpid(), number)
        if moment == "within a step":
            time.sleep(20)  # cut off by the signal
        return 1

    @dg.op
    def second(one: int) -> None:
        time.sleep(0.1 * one)

    @dg.job
    def steps() -> None:
        second(first())

    run_id = new_run_id()
    with canceled_when_interrupted(instance, run_id):
        steps.execute_in_process(instance=instance, run_id=run_id, raise_on_error=False)
    return run_id


@pytest.mark.parametrize("moment", ["within a step", "at the end of a step"])
@pytest.mark.parametrize("number", ENDING)
def test_an_interrupted_run_is_canceled(
    instance: dg.DagsterInstance, number: signal.Signals, moment: str
) -> None:
    with pytest.raises(RunCanceled, match="the run is canceled"):
        executed(instance, number, moment=moment)
    [run] = instance.get_runs()
    assert run.status == Status.CANCELED
    events = [
        record.event_log_entry.dagster_event_type
        for record in instance.get_records_for_run(run.run_id).records
    ]
    assert dg.DagsterEventType.RUN_CANCELED in events
    assert dg.DagsterEventType.RUN_SUCCESS not in events


def test_a_run_that_nobody_interrupts_is_left_alone(instance: dg.DagsterInstance) -> None:
    run_id = executed(instance, signal.SIGWINCH, moment="at the end of a step")
    run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.status == Status.SUCCESS
