"""The command line as a process: how it ends when it is asked to."""

import os
import subprocess
import sys
from pathlib import Path

INTERRUPTED = 130

TERMINATED_AFTER_DAGSTER = """
import os, signal, time
from dagster._utils.interrupts import capture_interrupts
from llm_assets.cli import main

def work(**_):
    with capture_interrupts():
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(20)  # cut off by the signal, or the exit code is another

main.app = work
main.main()
"""


def test_sigterm_ends_a_command_whose_starter_ignores_interrupts(tmp_path: Path) -> None:
    """As a script's background job does. Dagster gives SIGTERM whatever SIGINT has."""
    command = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", sys.executable, "-W", "ignore", "-c"]
    done = subprocess.run(
        [*command, TERMINATED_AFTER_DAGSTER],
        env={**os.environ, "LLM_ASSETS_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (INTERRUPTED, "Interrupted.\n")
