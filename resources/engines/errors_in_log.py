"""The error that an engine itself said in its log, where what was reported only passes one on.

When a process of an engine dies, another one that was waiting for it raises an error of its own (`EOFError`,
a broken pipe, "a subprocess died"): a messenger, which does not know the cause. The cause is in the log, as
the traceback of the process that died.
"""

import re
from collections.abc import Iterator

# Raised by whoever lost the process at the other end; most of them have no text.
MESSENGERS = re.compile(
    r"^(EOFError|BrokenPipeError|ConnectionResetError|ConnectionRefusedError|ConnectionAbortedError"
    r"|ChildProcessError|CalledProcessError|BrokenProcessPool|ChildFailedError|ProcessExitedException)\b"
)
SAID_BY_MESSENGERS = (
    "abruptly died",  # datasets: "One of the subprocesses has abruptly died during map operation"
    "exited unexpectedly",  # torch: "DataLoader worker (pid(s) 7) exited unexpectedly"
    "terminated abruptly",  # concurrent.futures
    "connection closed by peer",  # gloo
)
TRACEBACK = "Traceback (most recent call last):"
RANK = re.compile(r"^\[rank\d+\]: ?")  # before each line of a training on several GPUs
ERROR = re.compile(r"^[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt|Died|Pool)\b")
LONGEST = 500


def is_messenger(error: str) -> bool:
    """Whether an error (`Class: text`) only says that another process is gone."""
    _, _, name = error.partition(":")[0].rpartition(".")
    said = error.lower()
    return bool(MESSENGERS.match(name)) or any(words in said for words in SAID_BY_MESSENGERS)


def own_error(log: str) -> str | None:
    """The last error in an engine's log that is not a messenger, as `Class: text` on one line."""
    own = [error for error in _errors(log) if not is_messenger(error)]
    return own[-1] if own else None


def _errors(log: str) -> Iterator[str]:
    """What each traceback ends with."""
    inside = False
    for line in (RANK.sub("", each) for each in log.splitlines()):
        if line.strip() == TRACEBACK:
            inside = True
        elif inside and not line.startswith((" ", "\t")) and line.strip():
            inside = False
            if ERROR.match(line):
                yield line.strip()[:LONGEST]
