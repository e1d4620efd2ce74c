"""An engine's environment that is there in a moment: a Python with `dagster_pipes`, and no engine."""

import json
import shutil
import venv
from pathlib import Path

import dagster_pipes

from resources.engines.installation import STAMP
from tests.conftest import ROOT

LOCK_DIGEST = "e" * 64


def make_engine(engines: Path) -> Path:
    """Installs it as the train engine; gives `engines`."""
    folder = engines / "train"
    venv.create(folder, symlinks=True)
    [packages] = folder.glob("lib/python*/site-packages")
    shutil.copytree(Path(dagster_pipes.__file__).parent, packages / "dagster_pipes")
    stamp = {"engine": "train", "device": "cpu", "lock_digest": LOCK_DIGEST, "versions": {}}
    (folder / STAMP).write_text(json.dumps(stamp))
    return engines


def make_package(folder: Path) -> Path:
    """The platform's packages as an image has them, with one worker more; gives `folder`."""
    for package in ("llm_assets", "resources"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(Path(__file__).with_name("worker.py"), folder / "llm_assets" / "workers" / "contract.py")
    return folder
