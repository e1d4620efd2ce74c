"""LocalProcesses with real processes."""

import fcntl
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from resources.processes import launcher
from resources.processes.local_processes import (
    LocalProcesses,
    ProcessEnd,
    ProcessError,
    ProcessRecord,
    own_network_fault,
    require_free_port,
)
from resources.waiting import wait_until

ENV = {"PATH": os.environ["PATH"]}
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) > 1:
    subprocess.Popen([sys.executable, "-IS", __file__], start_new_session=True)
print("up", flush=True)
time.sleep(600)
"""


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[LocalProcesses]:
    processes = LocalProcesses(tmp_path / "processes")
    yield processes
    for record in processes.all():
        processes.stop(record.name)


def start(
    processes: LocalProcesses, *command: str, name: str = "it", holds: tuple[Path, ...] = (), **env: str
) -> ProcessRecord:
    log = processes.folder.parent / "it.log"
    return processes.start(name, command=command, env=ENV | env, log=log, attributes={"port": 1}, holds=holds)


def watcher_is_gone(record: ProcessRecord) -> bool:
    return launcher.process_identity(record.watcher) is None


def wait_for_line(log: Path, count: int = 1) -> None:
    wait_until(lambda: log.read_text().count("\n") >= count, what=f"line {count} of {log}", timeout_s=10)


def test_the_record_is_there_before_the_process_runs(processes: LocalProcesses) -> None:
    record = start(processes, "cat", str(processes.folder / "it.json"))
    wait_until(lambda: not processes.alive(record), what="cat", timeout_s=10)
    assert json.loads(record.log.read_text())["pid"] == record.pid


def test_a_process_is_found_by_its_name_and_leads_its_own_session(processes: LocalProcesses) -> None:
    record = start(processes, "sleep", "600")
    assert processes.find("it") == record
    assert processes.all() == (record,)
    assert processes.alive(record)
    assert os.getsid(record.pid) == record.pid
    processes.stop("it")
    assert processes.find("it") is None
    assert not psutil.pid_exists(record.pid) or not processes.alive(record)


def test_secrets_travel_in_the_environment_and_not_in_the_record(processes: LocalProcesses) -> None:
    record = start(processes, "sh", "-c", "echo $KEY; exec sleep 600", KEY="s3cret")
    wait_for_line(record.log)
    assert record.log.read_text() == "s3cret\n"
    assert "s3cret" not in (processes.folder / "it.json").read_text()
    processes.stop("it")


def test_each_process_has_a_folder_for_temporary_files_that_goes_with_it(processes: LocalProcesses) -> None:
    record = start(processes, "sh", "-c", "touch $TMPDIR/left; echo $TMPDIR; exec sleep 600")
    wait_for_line(record.log)
    assert record.log.read_text().strip() == str(record.temporary_folder)
    assert (record.temporary_folder / "left").exists()
    processes.stop("it")
    assert not record.temporary_folder.exists()


def test_a_name_that_runs_already_is_refused(processes: LocalProcesses) -> None:
    record = start(processes, "sleep", "600")
    with pytest.raises(ProcessError, match=f"it runs already \\(pid {record.pid}"):
        start(processes, "sleep", "600")
    processes.stop("it")


def test_the_name_of_a_dead_process_is_free(processes: LocalProcesses) -> None:
    dead = start(processes, "true")
    wait_until(lambda: not processes.alive(dead), what="true", timeout_s=10)
    assert start(processes, "sleep", "600").pid != dead.pid
    assert not dead.temporary_folder.exists()
    processes.stop("it")


HOLDS = """
import fcntl, sys
with open(sys.argv[1]) as lease:
    fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
"""


def test_a_process_holds_the_files_that_it_was_given_until_it_is_gone(
    processes: LocalProcesses, tmp_path: Path
) -> None:
    leases = (tmp_path / "lease-1", tmp_path / "lease-2")
    for lease in leases:
        lease.touch()
    start(processes, "sleep", "600", holds=leases)
    for lease in leases:
        taking = subprocess.run([sys.executable, "-c", HOLDS, lease], capture_output=True, text=True)
        assert "BlockingIOError" in taking.stderr
    processes.stop("it")
    for lease in leases:
        subprocess.run([sys.executable, "-c", HOLDS, lease], check=True)


def test_a_process_that_cannot_hold_what_it_is_given_is_not_started(
    processes: LocalProcesses, tmp_path: Path
) -> None:
    with pytest.raises(ProcessError, match=r"it could not be started: .*No such file.*gone'"):
        start(processes, "sleep", "600", holds=(tmp_path / "gone",))
    with (tmp_path / "taken").open("w") as taken:
        fcntl.flock(taken, fcntl.LOCK_EX)
        with pytest.raises(ProcessError, match=r"taken cannot be locked: its artifact is being removed"):
            start(processes, "sleep", "600", holds=(tmp_path / "taken",))
    assert processes.all() == ()


def test_a_lock_that_is_never_freed_is_named(
    processes: LocalProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resources.processes.local_processes.LOCK_S", 0.1)
    with processes._changing(), pytest.raises(ProcessError, match=r"Another process has held .*\.lock"):
        start(processes, "true")


def test_a_command_that_does_not_exist_is_an_error_and_leaves_nothing(processes: LocalProcesses) -> None:
    with pytest.raises(ProcessError, match=r"it could not be started: .*No such file or directory"):
        start(processes, "/nowhere/vllm")
    assert processes.all() == ()


@pytest.mark.parametrize(
    ("script", "code", "text"),
    [
        ("", 0, "it ended with exit code 0"),
        ("raise SystemExit(3)", 3, "it ended with exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", -9, "it was killed by SIGKILL (signal 9)"),
        ("import os; os.abort()", -6, "it was killed by SIGABRT (signal 6)"),
        ("import os; os.kill(os.getpid(), 40)", -40, "it was killed by signal 40"),
    ],
)
def test_how_a_process_ended_is_known(processes: LocalProcesses, script: str, code: int, text: str) -> None:
    record = start(processes, sys.executable, "-IS", "-c", script)
    wait_until(lambda: not processes.alive(record), what="the script", timeout_s=10)
    end = processes.end(record)
    assert end is not None
    assert (end.exit_code, end.text, end.out_of_memory) == (code, text, False)
    assert abs(end.at - time.time()) < 60


def test_a_kill_for_want_of_memory_says_so() -> None:
    end = ProcessEnd(exit_code=-9, out_of_memory=True, at=0)
    assert end.text == "it was killed by SIGKILL (signal 9), because the machine ran out of memory"


def test_the_kernels_count_of_kills_for_memory_is_read() -> None:
    assert f"\noom_kill {launcher._killed_for_memory()}\n" in Path("/proc/vmstat").read_text()


def test_a_process_whose_watcher_was_killed_runs_on_and_its_end_is_unknown(processes: LocalProcesses) -> None:
    record = start(processes, "sleep", "600")
    assert processes.end(record) is None
    os.kill(record.watcher, signal.SIGKILL)
    wait_until(partial(watcher_is_gone, record), what="the watcher", timeout_s=10)
    assert processes.alive(record)
    os.kill(record.pid, signal.SIGKILL)
    wait_until(lambda: not processes.alive(record), what="sleep", timeout_s=10)
    assert processes.end(record) is None


def test_the_end_of_an_earlier_process_is_not_its_successors(processes: LocalProcesses) -> None:
    first = start(processes, "true")
    wait_until(lambda: not processes.alive(first), what="true", timeout_s=10)
    assert processes.end(first)
    second = start(processes, "sleep", "600")
    assert processes.end(second) is None


def test_what_was_stopped_leaves_nothing_behind(processes: LocalProcesses) -> None:
    for _ in range(5):
        record = start(processes, "sleep", "600")
        processes.stop("it")
        assert watcher_is_gone(record)
        assert [file.name for file in processes.folder.iterdir()] == [".lock"]


def test_stopping_what_never_ran_succeeds(processes: LocalProcesses) -> None:
    processes.stop("it")


def test_a_process_ignores_no_signal_that_its_starter_ignores(processes: LocalProcesses) -> None:
    """As a script's background job ignores SIGINT, and Dagster SIGTERM with it."""
    endings = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(ending, signal.SIG_IGN) for ending in endings]
    try:
        record = start(processes, "grep", "SigIgn", "/proc/self/status")
    finally:
        for ending, handler in zip(endings, before, strict=True):
            signal.signal(ending, handler)
    wait_for_line(record.log)
    ignored = int(record.log.read_text().split()[1], 16)
    assert not [each for each in endings if ignored >> (each - 1) & 1]


def test_children_that_ignore_the_signal_or_leave_the_session_are_ended_too(
    processes: LocalProcesses,
) -> None:
    script = processes.folder.parent / "stubborn.py"
    script.write_text(STUBBORN)
    record = start(processes, sys.executable, "-IS", str(script), "parent")
    wait_for_line(record.log, 2)
    tree = [psutil.Process(record.pid), *psutil.Process(record.pid).children(recursive=True)]
    assert len(tree) == 2
    processes.stop("it", timeout_s=0.3)
    assert [p for p in tree if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []


def test_children_of_a_process_that_died_are_ended(processes: LocalProcesses) -> None:
    record = start(processes, "sh", "-c", "sleep 600 & echo $!; exec sleep 600")
    wait_for_line(record.log)
    child = psutil.Process(int(record.log.read_text()))
    os.kill(record.pid, signal.SIGKILL)
    wait_until(lambda: not processes.alive(record), what="the kill", timeout_s=10)
    processes.stop("it")
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_process_that_got_the_pid_of_a_recorded_one_is_never_signalled(processes: LocalProcesses) -> None:
    record = start(processes, "true")
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as innocent:
        file = processes.folder / "it.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "pid": innocent.pid}))
        reused = processes.find("it")
        assert reused is not None
        assert not processes.alive(reused)
        processes.stop("it")
        assert innocent.poll() is None
        innocent.kill()
    assert not record.temporary_folder.exists()


def test_a_starter_killed_at_any_moment_leaves_no_unrecorded_process(processes: LocalProcesses) -> None:
    mark = uuid.uuid4().hex
    for moment, seconds in enumerate(s / 1000 for s in range(0, 60, 4)):
        name = f"{mark}-{moment}"
        starter = multiprocessing.get_context("fork").Process(
            target=start,
            args=(processes, sys.executable, "-IS", "-c", "import time; time.sleep(599)", name),
            kwargs={"name": name},
        )
        starter.start()
        time.sleep(seconds)
        starter.kill()
        starter.join()
        starter.close()
    wait_until(lambda: not _launching(mark), what="the launchers", timeout_s=30)
    assert {process.pid for process in _marked(mark, "time.sleep")} <= {r.pid for r in processes.all()}


def _marked(mark: str, part: str) -> list[psutil.Process]:
    every = [(process, str(process.info["cmdline"])) for process in psutil.process_iter(["cmdline"])]
    return [process for process, command in every if mark in command and part in command]


def _launching(mark: str) -> list[psutil.Process]:
    """Launchers that have not come as far as a watcher, whose one child is what was ordered."""
    launchers = _marked(mark, "launcher.py")
    ordered = {process.ppid() for process in _marked(mark, "time.sleep") if process.is_running()}
    return [process for process in launchers if process.is_running() and process.pid not in ordered]


LISTENS = """
import socket, time
with socket.create_server(("127.0.0.1", 0)) as listening:
    with socket.create_connection(listening.getsockname()):
        print(listening.getsockname()[1], flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("own_network", [False, True])
def test_in_a_network_of_its_own_a_process_reaches_itself_and_nobody_reaches_it(
    processes: LocalProcesses, own_network: bool
) -> None:
    log = processes.folder.parent / "it.log"
    command = (sys.executable, "-c", LISTENS)
    processes.start("it", command=command, env=ENV, log=log, attributes={}, own_network=own_network)
    wait_for_line(log)
    *said, port = log.read_text().splitlines()
    with socket.socket() as asking:
        reached = asking.connect_ex(("127.0.0.1", int(port))) == 0
    fault = own_network_fault() if own_network else None
    assert reached is (not own_network or fault is not None)
    assert said == (
        [f"The network of the whole machine is used, not one of its own: {fault}"] if fault else []
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to become another user")
def test_a_user_without_privileges_has_a_network_of_its_own_where_the_system_lets_it() -> None:
    """As the system's own `unshare` finds it."""
    code = (  # what it imports is imported before, while it can be read
        "import ctypes, os, socket, struct, sys\n"
        "from resources.processes.launcher import own_network_fault\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "ctypes.CDLL(None).prctl(4, 1)\n"  # PR_SET_DUMPABLE: its /proc is its own, as after an exec
        "sys.exit(own_network_fault() or 0)\n"
    )
    command = [sys.executable, "-c", code]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    unshare = ["setpriv", "--reuid", "65534", "--clear-groups", "unshare", "--user", "--net", "true"]
    allowed = subprocess.run(unshare, capture_output=True, check=False).returncode == 0
    assert (tried.returncode == 0) is allowed, tried.stderr


def test_a_port_in_use_is_refused_with_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(
            ProcessError, match=rf"MLflow cannot listen on port {port}: .*pid {os.getpid()}.*set X"
        ):
            require_free_port(port, what="MLflow", setting="X")
    require_free_port(port, what="MLflow", setting="X")
