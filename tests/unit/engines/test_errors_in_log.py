"""Whose error is shown: that of the process that died, not that of the one that waited for it."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from resources.engines.errors_in_log import is_messenger, own_error

MANAGER = """\
Running tokenizer on dataset (num_proc=16):   0%|          | 0/10 [00:00<?, ? examples/s]
Process SyncManager-1:
Traceback (most recent call last):
  File "/engines/train/lib/python3.11/site-packages/multiprocess/managers.py", line 592, in _run_server
    server = cls._Server(registry, address, authkey, serializer)
OSError: AF_UNIX path too long
Traceback (most recent call last):
  File "/package/llm_assets/workers/reporting.py", line 79, in work
    report.result(run(order, report))
  File "/engines/train/lib/python3.11/site-packages/multiprocess/connection.py", line 399, in _recv
    raise EOFError
EOFError
"""


def test_the_error_of_the_process_that_died_is_found_before_that_of_its_messenger() -> None:
    assert own_error(MANAGER) == "OSError: AF_UNIX path too long"


@pytest.mark.parametrize(
    "reported",
    [
        "EOFError",
        "EOFError: ",
        "BrokenPipeError: [Errno 32] Broken pipe",
        "ConnectionResetError: [Errno 104] Connection reset by peer",
        "RuntimeError: One of the subprocesses has abruptly died during map operation.To debug the error, …",
        "RuntimeError: DataLoader worker (pid(s) 4711) exited unexpectedly",
        "concurrent.futures.process.BrokenProcessPool: A process in the process pool was terminated abruptly",
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: train.py FAILED",
    ],
)
def test_what_only_passes_on_that_a_process_is_gone_is_a_messenger(reported: str) -> None:
    assert is_messenger(reported)


@pytest.mark.parametrize(
    "reported",
    [
        "OSError: AF_UNIX path too long",
        "ValueError: EOFError is not a template",
        "The dataset is too short: no row is left to train on.",
        "RuntimeError: expected scalar type Float but found BFloat16",
    ],
)
def test_what_says_a_cause_is_none(reported: str) -> None:
    assert not is_messenger(reported)


@pytest.mark.parametrize(
    ("log", "found"),
    [
        ("", None),
        ("EOFError\n", None),  # no traceback: nobody says that it was raised
        ("Traceback (most recent call last):\n  File x\nEOFError\n", None),
        ("Traceback (most recent call last):\n  File x\nValueError: a\n  b\nfurther\n", "ValueError: a"),
        (
            "[rank1]: Traceback (most recent call last):\n[rank1]:   File x\n[rank1]: ValueError: a\n",
            "ValueError: a",
        ),
        (
            "Traceback (most recent call last):\n  File x\nKeyError: 1\n\nDuring handling of the above "
            "exception, another exception occurred:\n\n"
            "Traceback (most recent call last):\n  File y\nTypeError: 2\n",
            "TypeError: 2",
        ),
    ],
)
def test_the_last_error_of_a_log_is_found_in_every_form(log: str, found: str | None) -> None:
    assert own_error(log) == found


def test_a_real_manager_that_dies_is_told_from_its_asker(tmp_path: Path) -> None:
    """Python's own words, whatever version runs this."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", "import multiprocessing; multiprocessing.Manager()"],
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert multiprocessing.get_start_method()  # the platform has one
    assert own_error(done.stderr) == "OSError: AF_UNIX path too long"
    assert is_messenger(done.stderr.strip().splitlines()[-1])
