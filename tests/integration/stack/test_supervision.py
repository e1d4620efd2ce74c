"""What dies is started again, with real processes; nothing of it holds up anything else."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from llm_assets.supervision import (
    FIRST_DELAY_S,
    LAST_DELAY_S,
    STATE_FILE,
    Part,
    Supervision,
    SupervisionError,
    end_up,
    supervised,
)
from resources.processes.local_processes import LocalProcesses, ProcessError
from resources.waiting import wait_until
from tests.conftest import ROOT

FAST_S = 0.05


class Parts:
    """Processes as parts; a part named `broken` cannot be started."""

    def __init__(self, folder: Path) -> None:
        self.processes = LocalProcesses(folder / "processes")
        self.log = folder / "it.log"

    def start(self, name: str) -> None:
        command = ("/does/not/exist",) if name == "broken" else ("sleep", "600")
        self.processes.start(
            name, command=command, env={"PATH": os.environ["PATH"]}, log=self.log, attributes={}
        )

    def fault(self, name: str) -> str | None:
        record = self.processes.find(name)
        if record is None:
            return f"{name} is not running."
        end = self.processes.end(record)
        return None if self.processes.alive(record) else f"{name} is not running: {end and end.text}."

    def part(self, name: str) -> Part:
        return Part(
            name=name,
            fault=lambda: self.fault(name),
            start=lambda: self.start(name),
            faults=(ProcessError,),
        )

    def kill(self, name: str) -> None:
        record = self.processes.find(name)
        assert record
        os.kill(record.pid, signal.SIGKILL)
        wait_until(lambda: not self.processes.alive(record), what=name, timeout_s=10)

    def pid(self, name: str) -> int | None:
        record = self.processes.find(name)
        return record.pid if record and self.processes.alive(record) else None


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    parts = Parts(tmp_path)
    yield parts
    for record in parts.processes.all():
        parts.processes.stop(record.name)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def supervision(tmp_path: Path, said: list[str], parts: Parts) -> Iterator[Supervision]:
    supervision = Supervision(home=tmp_path, say=said.append)
    supervision.begin()
    yield supervision
    supervision.end(lambda: None)


def look_until(
    supervision: Supervision, every: list[Part], condition: Callable[[], object], timeout_s: float = 20
) -> None:
    def looked() -> bool:
        supervision.look(every)
        return bool(condition())

    wait_until(looked, what="the supervision", timeout_s=timeout_s, every_s=FAST_S)


def _starts_are(supervision: Supervision, times: int) -> bool:
    return [each.count for each in supervised(supervision.home) or ()] == [times]


def test_what_runs_is_left_alone(supervision: Supervision, parts: Parts, said: list[str]) -> None:
    parts.start("it")
    before = parts.pid("it")
    for _ in range(5):
        supervision.look([parts.part("it")])
    assert (parts.pid("it"), said, supervised(supervision.home)) == (before, [], ())


def test_what_dies_is_started_again_later_each_time_and_named(
    supervision: Supervision, parts: Parts, said: list[str]
) -> None:
    parts.start("it")
    for times in (1, 2):
        parts.kill("it")
        killed = time.monotonic()
        look_until(supervision, [parts.part("it")], lambda: parts.pid("it"))
        assert time.monotonic() - killed >= FIRST_DELAY_S * 2 ** (times - 1)
        look_until(
            supervision,
            [parts.part("it")],
            partial(_starts_are, supervision, times),
        )
    assert said == [
        f"it is not running: it was killed by SIGKILL (signal 9). It is started again in {delay} s."
        for delay in (1, 2)
    ]
    (restarts,) = supervised(supervision.home) or ()
    assert "it was started again 2 times" in restarts.text
    assert "it was killed by SIGKILL" in restarts.text


def test_what_cannot_be_started_is_named_and_holds_up_nothing_else(
    supervision: Supervision, parts: Parts, said: list[str]
) -> None:
    parts.start("it")
    parts.kill("it")
    every = [parts.part("broken"), parts.part("it")]
    look_until(supervision, every, lambda: parts.pid("it"))
    look_until(supervision, every, lambda: any("broken could not be started" in line for line in said))
    look_until(supervision, every, lambda: sum("broken is not running" in line for line in said) == 2)
    (broken,) = [each for each in supervised(supervision.home) or () if each.name == "broken"]
    assert broken.next_at is not None
    assert "the next try is in" in broken.text


def test_a_slow_start_holds_up_nothing_else(supervision: Supervision, parts: Parts) -> None:
    ended: list[bool] = []
    slow = Part(
        name="slow",
        fault=lambda: None if ended else "slow is not running.",
        start=lambda: (wait_until(lambda: ended, what="the test", timeout_s=30), None)[1],
        faults=(),
    )
    look_until(supervision, [slow], lambda: supervision._watches["slow"].starting)
    parts.start("it")
    parts.kill("it")
    look_until(supervision, [slow, parts.part("it")], lambda: parts.pid("it"))
    assert not ended
    ended.append(True)


def test_a_start_that_was_under_way_at_the_end_is_stopped_too(
    tmp_path: Path, said: list[str], parts: Parts
) -> None:
    supervision = Supervision(home=tmp_path, say=said.append)
    supervision.begin()
    stops: list[bool] = []

    def start() -> None:
        wait_until(lambda: stops, what="the first stop", timeout_s=30)
        parts.start("late")

    late = Part(name="late", fault=lambda: parts.fault("late"), start=start, faults=(ProcessError,))
    look_until(supervision, [late], lambda: supervision._watches["late"].starting)

    def stop() -> None:
        stops.append(True)
        parts.processes.stop("late")

    supervision.end(stop)
    assert (len(stops), parts.pid("late")) == (2, None)
    assert not (tmp_path / STATE_FILE).exists()


def test_an_unexpected_error_of_a_start_is_not_swallowed(supervision: Supervision) -> None:
    def start() -> None:
        raise ZeroDivisionError("a mistake of ours")

    wrong = Part(name="wrong", fault=lambda: "wrong is not running.", start=start, faults=(ProcessError,))
    with pytest.raises(ZeroDivisionError, match="a mistake of ours"):
        look_until(supervision, [wrong], lambda: False)
    supervision._watches.clear()


def test_the_delay_has_an_upper_limit(supervision: Supervision, parts: Parts) -> None:
    part = parts.part("never-started")
    supervision.look([part])
    watch = supervision._watches["never-started"]
    for _ in range(20):
        watch.due = None
        supervision.look([part])
    assert watch.delay_s == LAST_DELAY_S


def test_the_state_of_a_killed_up_is_not_believed(supervision: Supervision) -> None:
    file = supervision.home / STATE_FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), "identity": "another boot/1"}))
    assert supervised(supervision.home) is None
    file.unlink()
    assert supervised(supervision.home) is None


UP = """
import sys, time
from pathlib import Path
from llm_assets.supervision import Supervision
supervision = Supervision(home=Path(sys.argv[1]), say=print)
supervision.begin()
try:
    print("up", flush=True)
    time.sleep(600)
finally:
    supervision.end(lambda: None)
"""


def test_an_up_of_another_terminal_is_ended_and_stops_its_parts_itself(tmp_path: Path) -> None:
    begin = "import signal; signal.signal(signal.SIGTERM, signal.default_int_handler);"
    command = [sys.executable, "-c", begin + UP, str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    ) as up:
        assert up.stdout is not None
        assert up.stdout.readline() == "up\n"
        with pytest.raises(SupervisionError, match="runs already"):
            Supervision(home=tmp_path, say=print).begin()
        end_up(tmp_path)
        assert not (tmp_path / STATE_FILE).exists()
        up.wait(timeout=20)
    end_up(tmp_path)
