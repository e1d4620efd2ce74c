"""One base for the errors that we can explain, and how the command line ends with one."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_assets.cli.options import FAILED, MISUSED

ROOT = Path(__file__).parents[2]
BUILT_IN = {"BaseException", "Exception", "OSError", "RuntimeError", "ValueError"}
OF_NO_BASE = {
    "LlmAssetsError",  # it is the base
    "WorkerError",  # workers run in an engine's environment, without resources
    "Untrusted",  # the audit log's verifier is exported as one file
    # Caught by whoever called: never read by a person.
    *("InvalidRow", "Interrupted", "NotTextError", "Passing", "Refused", "TooLongError", "WrongValueError"),
    "_RowTooLong",
}

RAISED = """
from llm_assets.cli import main
from resources.errors import InputError, LlmAssetsError

def work(**_):
    raise {}("catalog/models/bot.yaml: no such base model")

main.app = work
main.main()
"""


def _of_no_base() -> Iterator[str]:
    for package in ("llm_assets", "resources"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef) and {ast.unparse(base) for base in node.bases} & BUILT_IN:
                    yield node.name


def test_every_error_that_a_person_may_read_has_the_one_base() -> None:
    assert set(_of_no_base()) == OF_NO_BASE


@pytest.mark.parametrize(("error", "code"), [("LlmAssetsError", FAILED), ("InputError", MISUSED)])
def test_what_we_can_explain_ends_a_command_with_one_message(error: str, code: int) -> None:
    done = _ended_with(error)
    assert (done.returncode, done.stderr) == (code, "catalog/models/bot.yaml: no such base model\n")


def test_a_defect_ends_a_command_with_its_traceback() -> None:
    assert "Traceback" in _ended_with("KeyError").stderr


def _ended_with(error: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RAISED.format(error)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
