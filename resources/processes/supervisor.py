"""Runs one command and sees to it that nothing of it outlives whoever asked for it.

Run as a script (`python -I -S supervisor.py COMMAND …`) with a pipe as standard input. The asker
keeps the other end open for as long as it wants the command; when the asker dies, however it dies,
the pipe closes and the command's whole process group is killed. SIGTERM is passed on; the exit
status is the command's, `128 + signal` when it was killed. Standard library only: it starts in
20 ms and needs no environment.

With `--limits JSON FILE` before the command, the command and what it starts are looked at every half
second, and killed together when they go beyond `memory_bytes`, `processes` or `seconds`. Which limit that
was, and what was seen, is written to FILE. Memory is what is theirs alone, in memory and swapped out; mapped
files (weights, libraries) can be dropped by the kernel and do not count. Limits of the kernel's own would not
do: RLIMIT_AS and RLIMIT_DATA count addresses, of which CUDA and thread stacks take many times what they use,
and RLIMIT_NPROC counts the user's other processes too. Not covered: memory that is taken within half a
second, and processes that leave the session.
"""

import contextlib
import ctypes
import json
import math
import os
import selectors
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

TERMINATION_GRACE_S = 20
LOOK_S = 0.5
_PR_SET_PDEATHSIG = 1
_WHOLE = ("RssAnon", "RssShmem", "VmSwap")
_SHARES = ("Pss_Anon", "Pss_Shmem", "SwapPss")


class Limits:
    """What the processes of this session, apart from the supervisor itself, may use."""

    def __init__(self, limits: dict[str, int], report: Path) -> None:
        self._limits, self._report = limits, report
        self._until = time.monotonic() + limits["seconds"]

    def exceeded(self) -> bool:
        """Whether one is; then it is written down, whatever else ends the command."""
        for name, seen in self._seen():
            if seen > self._limits[name]:
                self._report.write_text(json.dumps({"limit": name, "seen": seen}))
                return True
        return False

    def _seen(self) -> Iterator[tuple[str, int]]:
        yield "seconds", self._limits["seconds"] + math.ceil(time.monotonic() - self._until)
        pids = _session()
        yield "processes", len(pids)
        # Pages that a fork shares with its parent count in both; only the slower look tells them apart.
        if sum(_bytes(pid, "status", _WHOLE) for pid in pids) > self._limits["memory_bytes"]:
            yield "memory_bytes", sum(_bytes(pid, "smaps_rollup", _SHARES) for pid in pids)


def _session() -> list[int]:
    """The other processes of this session."""
    own, session = os.getpid(), str(os.getsid(0))
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) != own:
            with contextlib.suppress(OSError):  # it has ended
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
                if fields[3] == session:
                    found.append(int(entry.name))
    return found


def _bytes(pid: int, file: str, names: tuple[str, ...]) -> int:
    """The sum of these lines of a file of /proc, 0 for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.partition(":")[0] in names)


def main(arguments: list[str]) -> int:
    limits, command = None, arguments
    if arguments[0] == "--limits":
        limits, command = Limits(json.loads(arguments[1]), Path(arguments[2])), arguments[3:]
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    ready, done = os.pipe()
    os.set_blocking(done, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(done)
    supervisor = os.getpid()
    child = os.fork()
    if child == 0:
        _become(command, libc, supervisor)
    # The child does so too: whoever is first, the group is there before anything is to be killed.
    with contextlib.suppress(PermissionError, ProcessLookupError):  # it runs the command, or has ended
        os.setpgid(child, child)
    signal.signal(signal.SIGTERM, lambda *_: _terminate(child))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, lambda *_: _kill(child))
    return _watch(child, ready, limits)


def _become(command: list[str], libc: ctypes.CDLL | None, supervisor: int) -> None:
    """In the child: a process group of its own, killed when the supervisor is, then the command."""
    try:
        signal.set_wakeup_fd(-1)
        for ending in (signal.SIGINT, signal.SIGTERM):  # the asker may ignore them, and exec keeps that
            signal.signal(ending, signal.SIG_DFL)
        os.setpgid(0, 0)
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:  # it died before the line above
            os._exit(128 + signal.SIGKILL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.execvp(command[0], command)  # noqa: S606  the command is the asker's own
    except OSError as error:
        print(f"{command[0]} could not be started: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(127)


def _watch(child: int, ready: int, limits: Limits | None) -> int:
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(ready, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select(LOOK_S if limits else None):
            if key.fd == 0 and not os.read(0, 4096):
                selector.unregister(0)
                _kill(child)
            elif key.fd == ready:
                os.read(ready, 4096)
        finished, status = os.waitpid(child, os.WNOHANG)
        if finished:
            _kill(child)
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if limits and limits.exceeded():
            limits = None
            _kill(child)


def _terminate(child: int, _frame: FrameType | None = None) -> None:
    signal.alarm(TERMINATION_GRACE_S)
    _signal_group(child, signal.SIGTERM)


def _kill(child: int) -> None:
    _signal_group(child, signal.SIGKILL)


def _signal_group(child: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # already gone, which is what was wanted
        os.killpg(child, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
