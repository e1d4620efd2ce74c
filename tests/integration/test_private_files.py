"""Only the owner can open what the platform writes, whatever the umask of whoever starts it."""

import json
import os
import stat
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm_assets.installation.settings import Settings
from resources.private_files import OTHERS, open_to_others
from resources.processes.local_processes import LocalProcesses
from resources.waiting import wait_until
from tests.conftest import ROOT

NOBODY = 65534
UMASKS = pytest.mark.parametrize("umask", [0, 0o022], ids=oct)

SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"].values()
LOCATIONS = [
    each["python_module"]["module_name"]
    for each in yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
]
# Typer, which the command's module imports, uses what Click has deprecated: an error in this process.
LOOK = """
import json, os, sys
from dataclasses import asdict
from pathlib import Path
from llm_assets.cli.doctor import private_files
from llm_assets.installation.settings import Settings
home, user = Path(sys.argv[1]), int(sys.argv[2])
os.setuid(user)
found = private_files(Settings(root=home.parent, catalog=home.parent / "catalog", home=home))
print(json.dumps([asdict(each) for each in found]))
"""

# How the code begins that a person or Dagster starts: the command line, the code location.
BEGINNINGS = {
    **{
        script: f"import {module} as m; m.app = lambda **_: None; m.{function}()"
        for script in SCRIPTS
        for module, _, function in [script.partition(":")]
    },
    **{module: f"import {module}" for module in LOCATIONS},
}


@UMASKS
@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_every_process_of_the_platform_begins_private(beginning: str, umask: int) -> None:
    code = f"{BEGINNINGS[beginning]}\nimport os; print(os.umask(0))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=os.environ | {"LLM_ASSETS_ROOT": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        umask=umask,
    )
    assert int(done.stdout) == OTHERS


@UMASKS
def test_what_a_detached_process_writes_is_private(tmp_path: Path, umask: int) -> None:
    processes, written = LocalProcesses(tmp_path / "processes"), tmp_path / "written"
    with as_if(umask):
        processes.start(
            "writer",
            command=("sh", "-c", f"mkdir {written}; touch {written}/file; ln -s /etc/passwd {written}/link"),
            env=os.environ,
            log=tmp_path / "writer.log",
            attributes={},
        )
    wait_until((written / "link").is_symlink, what="the writer", timeout_s=20)
    for path in (written, written / "file", tmp_path / "writer.log"):
        assert stat.S_IMODE(path.stat().st_mode) & OTHERS == 0, path
    processes.stop("writer")


def test_doctor_closes_a_home_of_an_earlier_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLM_ASSETS_ENGINES", raising=False)
    settings = Settings(root=tmp_path, catalog=tmp_path / "catalog", home=tmp_path / "home")
    rows = settings.home / "store" / "datasets" / "train.jsonl"
    engine = settings.engines / "train" / "bin" / "python"
    elsewhere = tmp_path / "elsewhere"
    with as_if(0o022):
        for file in (rows, engine, elsewhere):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("")
        (settings.home / "link").symlink_to(elsewhere)
    [finding] = findings(settings)
    assert finding["well"]
    assert finding["found"].startswith("4 could be opened by other users")  # home, store, datasets, the rows
    assert list(open_to_others(settings.home, apart_from=settings.engines)) == []
    assert stat.S_IMODE(engine.stat().st_mode) == 0o644, "public packages, below a closed folder"
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o644, "a link's target is another's"
    [finding] = findings(settings)
    assert (finding["well"], finding["found"]) == (True, "only you can open what lies in the state folder")


def test_doctor_tells_of_a_store_that_others_can_enter_and_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    store.chmod(0o750)
    monkeypatch.setenv("LLM_ASSETS_STORE", f"file:{store}")
    settings = Settings(root=tmp_path, catalog=tmp_path / "catalog", home=tmp_path / "home")
    _, finding = findings(settings)
    assert (finding["what"], finding["well"]) == ("artifact store", True)
    assert f"unless that is meant: chmod -R go= {store}" in finding["found"]
    assert stat.S_IMODE(store.stat().st_mode) == 0o750


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to become another user")
def test_doctor_names_what_belongs_to_another_user() -> None:
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        home = Path(place, "home")
        with as_if(0o022):
            home.mkdir()
        settings = Settings(root=Path(place), catalog=Path(place, "catalog"), home=home)
        [finding] = findings(settings, user=NOBODY)
        assert not finding["well"]
        assert finding["remedy"].endswith(f"chmod -R go= {home}")


def findings(settings: Settings, *, user: int | None = None) -> list[dict[str, Any]]:
    as_whom = str(os.geteuid() if user is None else user)
    command = [sys.executable, "-W", "ignore", "-c", LOOK, str(settings.home), as_whom]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@contextmanager
def as_if(umask: int) -> Iterator[None]:
    before = os.umask(umask)
    try:
        yield
    finally:
        os.umask(before)
