"""Runs what a downloaded model says, such as its chat template, in a process of limited time and memory.

A template cannot run code (transformers renders it in Jinja's sandbox), but it can go on for ever or make a
text of any size.
"""

import json
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from llm_assets.workers.failures import WorkerError

MOST_SECONDS = 10  # of processor time; a template takes milliseconds
MOST_BYTES = 1 << 30
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
OUT_OF_MEMORY, FAILED = 3, 4


def bounded(call: Callable[[], Any], *, what: str, remedy: str, most_seconds: int = MOST_SECONDS) -> Any:
    """What `call` returns (plain JSON), carried out in a child of this process.

    Raises:
        WorkerError: It took more time or memory than `what` may take, or ended the process.
    """
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        _carry_out(call, write_end, most_seconds)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as answer:
        text = answer.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 0:
        return json.loads(text)
    ended = f"ended its process with code {code}"
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        ended = f"did not end within {most_seconds} s of processor time"
    if code == FAILED:
        ended = f"failed: {text.decode(errors='replace')}"
    if code == OUT_OF_MEMORY:
        ended = f"needs more than {MOST_BYTES >> 20} MiB of memory"
    raise WorkerError(f"{what} {ended}. {remedy}")


def _carry_out(call: Callable[[], Any], write_end: int, most_seconds: int) -> NoReturn:
    """In the child: within its limits, and without anything that runs when a process ends."""
    code = 1
    try:
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * PAGE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, used + MOST_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (most_seconds, most_seconds + 5))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _write(write_end, json.dumps(call()))
        code = 0
    except MemoryError:
        code = OUT_OF_MEMORY
    except Exception as error:  # noqa: BLE001  whatever it is, the parent says it
        _write(write_end, f"{type(error).__name__}: {error}"[:500])
        code = FAILED
    finally:
        os._exit(code)


def _write(descriptor: int, text: str) -> None:
    answer = text.encode(errors="replace")
    while answer:
        answer = answer[os.write(descriptor, answer) :]
