"""A run of this process that is interrupted ends canceled, as one that was terminated in the UI does.

Dagster ends an interrupted run as canceled only if it was marked before as being canceled; otherwise it is a
failure. It also puts handlers of its own in the place of whatever handles the signals, so they are heard
through Python's wakeup descriptor, which is written to whoever handles them.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from dagster import DagsterRunStatus

from resources.errors import LlmAssetsError

ENDING = (signal.SIGINT, signal.SIGTERM)
OVER = b"\0"  # no signal has this number
UNFINISHED = (DagsterRunStatus.STARTED, DagsterRunStatus.STARTING)


class RunCanceled(LlmAssetsError):
    """The run was interrupted, and is canceled."""


@contextmanager
def canceled_when_interrupted(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Executes the run in the block. Only in the main thread, where Python handles signals.

    Raises:
        RunCanceled: SIGINT or SIGTERM came; the run is canceled.
        KeyboardInterrupt: One came when the run had just succeeded.
    """
    heard = threading.Event()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    listener = threading.Thread(target=_listen, args=(reading, heard, instance, run_id), daemon=True)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    listener.start()
    try:
        yield
    except KeyboardInterrupt:
        heard.set()
    finally:
        signal.set_wakeup_fd(before)
        os.write(writing, OVER)
        listener.join()
        os.close(writing)
        os.close(reading)
    if heard.is_set():
        _end(instance, run_id)


def _listen(reading: int, heard: threading.Event, instance: dg.DagsterInstance, run_id: str) -> None:
    while (number := os.read(reading, 1)) != OVER:
        if number[0] in ENDING and not heard.is_set():
            heard.set()
            run = instance.get_run_by_id(run_id)
            if run and run.status in UNFINISHED:
                instance.report_run_canceling(run, "Interrupted in the terminal.")


def _end(instance: dg.DagsterInstance, run_id: str) -> None:
    run = instance.get_run_by_id(run_id)
    if run and run.status == DagsterRunStatus.SUCCESS:
        raise KeyboardInterrupt
    if run and run.status != DagsterRunStatus.CANCELED:  # it ended before it could be marked
        instance.report_run_canceled(run)
    raise RunCanceled("Interrupted: the run is canceled.")
