"""A work order that goes beyond a limit is ended with all that it started, and its run says which one."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest

from resources.artifact_store.store import ArtifactStore
from resources.local.compute import LocalCompute
from resources.processes import order_limits
from resources.seams.compute import WorkOrder, WorkOrderError

LARGE = 2**40
TAKES_MEMORY = """
import os, time
for child in range(2):
    if os.fork() == 0:
        taken = [b"x" * (8 << 20) for _ in range(20)]
        time.sleep(600)
time.sleep(600)
"""
SHARES_MEMORY = """
import os, time
taken = bytearray(os.urandom(100 << 20))
children = [os.fork() for _ in range(1)]
if children != [0]:
    for _ in range(5):
        if os.fork() == 0:
            time.sleep(3)
            os._exit(0)
time.sleep(3)
"""
FORKS = "import subprocess, time; [subprocess.Popen(['sleep', '600']) for _ in range(40)]; time.sleep(600)"
WAITS = "import time; time.sleep(600)"


class World:
    """An installation whose engine is this Python and whose one worker runs a script."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        python = folder / "engines" / "train" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o700)
        (folder / "package" / "workers").mkdir(parents=True)
        for package in ("", "workers"):
            (folder / "package" / package / "__init__.py").touch()

    def run(self, script: str, **limits: int) -> None:
        """Runs a worker of this script as the platform does."""
        (self.folder / "package" / "workers" / "script.py").write_text(script)
        usual = {"memory_bytes": LARGE, "processes": LARGE, "seconds": LARGE}
        compute = LocalCompute(
            store=ArtifactStore(url=f"file:{self.folder / 'store'}"),
            work=str(self.folder / "work"),
            engines=str(self.folder / "engines"),
            package=str(self.folder / "package"),
            **(usual | limits),
        )
        work = WorkOrder(engine="train", worker="script", inputs={}, params={})

        @dg.op
        def order(context: dg.OpExecutionContext) -> None:
            compute.run(context, work)

        @dg.job
        def alone() -> None:
            order()

        alone.execute_in_process(raise_on_error=True)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield World(tmp_path)
    assert [each for each in psutil.process_iter() if str(tmp_path) in _place(each)] == []


def _place(process: psutil.Process) -> str:
    try:
        return process.cwd()
    except psutil.Error:  # it has ended
        return ""


@pytest.mark.parametrize(
    ("script", "limits", "said"),
    [
        (
            TAKES_MEMORY,
            {"memory_bytes": 200 << 20},
            rf"its processes took 0\.\d GiB of memory, more .*; {order_limits.MEMORY_SETTING} raises that",
        ),
        (
            FORKS,
            {"processes": 20},
            rf"it had \d\d processes, more than .* may; {order_limits.PROCESSES_SETTING} raises that",
        ),
        (
            WAITS,
            {"seconds": 2},
            rf"it ran for more than 0\.0 hours, .*; {order_limits.HOURS_SETTING} raises that",
        ),
    ],
    ids=["memory", "processes", "seconds"],
)
def test_a_work_order_beyond_a_limit_is_ended_and_names_the_setting(
    world: World, script: str, limits: dict[str, int], said: str
) -> None:
    started = time.monotonic()
    with pytest.raises(WorkOrderError, match=said):
        world.run(script, **limits)
    assert time.monotonic() - started < 60
    with pytest.raises(WorkOrderError, match="the engine ended without a result"):
        world.run("", **limits)  # the next try is not told of the limit of this one


def test_memory_that_processes_share_counts_once(world: World) -> None:
    with pytest.raises(WorkOrderError, match="the engine ended without a result"):
        world.run(SHARES_MEMORY, memory_bytes=250 << 20)
