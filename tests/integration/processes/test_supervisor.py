"""The supervisor: nothing of a command outlives whoever asked for it."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from resources.processes import supervisor
from resources.waiting import wait_until

COMMAND = [sys.executable, "-I", "-S", supervisor.__file__]
PARENT_AND_CHILD = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid}\\n")
time.sleep(600)
"""
IGNORES_SIGTERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + PARENT_AND_CHILD


Supervised = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def supervised() -> Iterator[Supervised]:
    """Starts a Python script under the supervisor; at the end its pipe is closed."""
    with ExitStack() as stack:

        def start(script: str, *arguments: str, python: str = sys.executable) -> subprocess.Popen[bytes]:
            command = [*COMMAND, python, "-S", "-c", script, *arguments]
            return stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE))

        yield start


def started(note: Path) -> list[int]:
    text = wait_until(
        lambda: note.read_text() if note.is_file() and note.read_text().endswith("\n") else None,
        what="the command",
        timeout_s=20,
    )
    return [int(pid) for pid in text.split()]


def gone(pids: list[int]) -> bool:
    """A zombie that nobody reaped yet has ended, too."""
    running = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    return all(process.status() == psutil.STATUS_ZOMBIE for process in running)


@pytest.mark.parametrize("code", [0, 3])
def test_the_exit_code_is_the_commands(supervised: Supervised, code: int) -> None:
    process = supervised(f"raise SystemExit({code})")
    assert process.wait(timeout=20) == code


def test_a_killed_command_gives_128_plus_the_signal(supervised: Supervised) -> None:
    process = supervised("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert process.wait(timeout=20) == 128 + signal.SIGKILL


def test_a_command_that_does_not_exist_is_said(
    supervised: Supervised, capfd: pytest.CaptureFixture[str]
) -> None:
    process = supervised("", python="/does/not/exist")
    assert process.wait(timeout=20) == 127
    assert "/does/not/exist could not be started" in capfd.readouterr().err


def test_everything_ends_when_the_asker_lets_go(supervised: Supervised, tmp_path: Path) -> None:
    process = supervised(PARENT_AND_CHILD, str(tmp_path / "note"))
    pids = started(tmp_path / "note")
    assert process.stdin is not None
    process.stdin.close()
    process.wait(timeout=20)
    wait_until(lambda: gone(pids), what="the end of the command", timeout_s=10)


def test_an_asker_that_let_go_before_the_start_leaves_no_survivor() -> None:
    asked_by = str(uuid.uuid4())
    command = [*COMMAND, sys.executable, "-S", "-c", "import time; time.sleep(600)", asked_by]
    let_go, other_end = os.pipe()
    os.close(other_end)
    every = [subprocess.Popen(command, stdin=let_go) for _ in range(20)]
    os.close(let_go)
    assert {process.wait(timeout=20) for process in every} == {128 + signal.SIGKILL}
    running = [
        each.pid for each in psutil.process_iter(["cmdline"]) if asked_by in (each.info["cmdline"] or [])
    ]
    assert gone(running)


def test_sigterm_is_passed_on(supervised: Supervised, tmp_path: Path) -> None:
    process = supervised(PARENT_AND_CHILD, str(tmp_path / "note"))
    pids = started(tmp_path / "note")
    process.terminate()
    assert process.wait(timeout=20) == 128 + signal.SIGTERM
    wait_until(lambda: gone(pids), what="the end of the command", timeout_s=10)


def test_a_command_ignores_no_signal_that_its_asker_ignores(tmp_path: Path) -> None:
    """As a script's background job ignores SIGINT, and Dagster SIGTERM with it."""
    ignoring = ["sh", "-c", "trap '' INT TERM; exec \"$@\"", "sh"]
    command = [*ignoring, *COMMAND, "grep", "SigIgn", "/proc/self/status"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ignored = int(process.stdout.read().split()[1], 16)
    assert not [each for each in (signal.SIGINT, signal.SIGTERM) if ignored >> (each - 1) & 1]


def test_a_killed_asker_leaves_no_orphan(tmp_path: Path) -> None:
    note = tmp_path / "note"
    supervised_command = [*COMMAND, sys.executable, "-S", "-c", IGNORES_SIGTERM, str(note)]
    asker = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"""
import subprocess, time
subprocess.Popen({supervised_command!r}, stdin=subprocess.PIPE)
time.sleep(600)
""",
        ]
    )
    pids = started(note)
    asker.kill()
    asker.wait()
    wait_until(lambda: gone(pids), what="the end of the command", timeout_s=10)


def test_a_killed_supervisor_takes_the_command_with_it(supervised: Supervised, tmp_path: Path) -> None:
    process = supervised(PARENT_AND_CHILD, str(tmp_path / "note"))
    pids = started(tmp_path / "note")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: gone(pids[:1]), what="the end of the command", timeout_s=10)
    if not gone(pids[1:]):
        os.kill(pids[1], signal.SIGKILL)
