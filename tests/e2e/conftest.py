"""What several end-to-end tests start from."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT, MakeOnce
from tests.e2e.adapted_models import QUESTIONS


@pytest.fixture(scope="session")
def adapted(tiny_model: Path, train_python: Path, make_once: MakeOnce) -> Path:
    """`one` and `two`, two adapters of the tiny model with their merged models and offline answers."""

    def make(folder: Path) -> None:
        subprocess.run(
            [train_python, ROOT / "tests" / "e2e" / "adapted_models.py", tiny_model, folder, *QUESTIONS],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            check=True,
        )

    return make_once("adapted", make)
