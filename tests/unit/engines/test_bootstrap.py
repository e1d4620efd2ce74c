"""`make setup` and `make demo`: which lock is installed, and what a person sees of it."""

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import ROOT
from tests.terminals import in_terminal

BOOTSTRAP = ROOT / "images" / "platform" / "bootstrap.py"
PACKAGES = 242
UV = f"""
import sys
for number in range({PACKAGES}):
    print(f"Downloading package{{number}} (1.0MiB)", file=sys.stderr, flush=True)
print("Prepared {PACKAGES} packages in 1s", file=sys.stderr)
print("Installed {PACKAGES} packages in 1s", file=sys.stderr)
for number in range({PACKAGES}):
    print(f" + package{{number}}==1.0", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""
SYNC = f"""
import os, sys
from pathlib import Path
sys.path[:0] = [{str(BOOTSTRAP.parent)!r}, {str(ROOT)!r}]
import bootstrap
command = [sys.executable, "-c", {UV!r}, sys.argv[1]]
bootstrap._sync(command, Path(sys.argv[2]), dict(os.environ))
"""


@pytest.fixture
def bootstrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", BOOTSTRAP)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("there", "wanted", "installed"),
    [
        (None, "platform", "platform"),
        ("platform", "platform", "platform"),
        ("dev", "platform", "dev"),
        ("platform", "dev", "dev"),
        ("dev", "cluster", "cluster"),
    ],
)
def test_a_demo_takes_no_tools_away_from_who_works_here(
    bootstrap: ModuleType, tmp_path: Path, there: str | None, wanted: str, installed: str
) -> None:
    if there:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "python").touch()
        (tmp_path / bootstrap.STAMP).write_text(json.dumps({"lock": f"{there}.lock.txt"}))
    lock = bootstrap._lock(wanted, tmp_path)
    assert lock.name == f"{installed}.lock.txt"
    assert lock.is_file()


def test_an_installation_is_one_line_of_a_terminal(tmp_path: Path) -> None:
    with in_terminal(sync(tmp_path, exit_code=0), os.environ) as terminal:
        assert terminal.wait(timeout_s=60) == 0
    assert terminal.lines() == [f"  installed {PACKAGES} packages"]
    assert f"downloading 0 of {PACKAGES} MiB".encode() in terminal.raw


def test_one_that_fails_shows_the_end_of_what_uv_said(tmp_path: Path) -> None:
    with in_terminal(sync(tmp_path, exit_code=1), os.environ) as terminal:
        assert terminal.wait(timeout_s=60) == 1
    said = "\n".join(terminal.lines())
    assert f"+ package{PACKAGES - 1}==1.0" in said
    assert "failed with exit code 1" in said


def sync(folder: Path, *, exit_code: int) -> list[str]:
    lock = folder / "lock.txt"
    lock.write_text("package==1.0\n" * PACKAGES)
    return [sys.executable, "-c", SYNC, str(exit_code), str(lock)]
