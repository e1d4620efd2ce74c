"""Runs one command and sees to it that nothing of it outlives whoever asked for it.

Run as a script (`python -I -S supervisor.py COMMAND …`) with a pipe as standard input. The asker
keeps the other end open for as long as it wants the command; when the asker dies, however it dies,
the pipe closes and the command's whole process group is killed. SIGTERM is passed on; the exit
status is the command's, `128 + signal` when it was killed. Standard library only: it starts in
20 ms and needs no environment.
"""

import contextlib
import ctypes
import os
import selectors
import signal
import sys
from types import FrameType

TERMINATION_GRACE_S = 20
_PR_SET_PDEATHSIG = 1


def main(command: list[str]) -> int:
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
    return _watch(child, ready)


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


def _watch(child: int, ready: int) -> int:
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(ready, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
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
