"""The wheel in an environment of its own, made of the platform's lock alone: all that it needs is in it."""

import hashlib
import os
import subprocess
import sys
import zipfile
from email.parser import Parser
from importlib.metadata import version
from pathlib import Path

import pytest

from llm_assets.cli.init import lay_out
from resources.engines.package_indexes import uv_environment
from tests.conftest import ENGINES, ROOT
from tests.servers.ports import free_port

UV = str(Path(sys.executable).with_name("uv"))
FOLDERS = """
from resources import shipped_files
for name, value in sorted(vars(shipped_files).items()):
    if name.isupper() and not name.startswith("_"):
        print(value)
"""
FOR_THE_CHECKOUT_ALONE = ("images/platform/", "images/locks.py", "images/supply_chain.py")
OWNERS = "from importlib.metadata import packages_distributions as owners; print(owners()[{!r}])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [path] = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its `bin` folder. The lock's packages come from uv's cache, which `make setup` has filled."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    lock = ROOT / "images" / "platform" / "platform.lock.txt"
    here = ["--quiet", "--offline", "--python", str(folder / "bin" / "python")]
    hashed = ["--require-hashes", "--only-binary", ":all:"]
    settings = uv_environment()
    subprocess.run([UV, "pip", "sync", *here, *hashed, str(lock)], env=settings, check=True)
    subprocess.run([UV, "pip", "install", *here, "--no-deps", str(wheel)], env=settings, check=True)
    return folder / "bin"


def run(folder: Path, *command: str | Path, **settings: str) -> str:
    """As who has only the wheel: no checkout, and no setting but those given."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("LLM_ASSETS_", "PYTHON"))
    }
    done = subprocess.run(
        command, cwd=folder, env=kept | settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [path] = [name for name in names if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(path).decode())
    assert metadata["Version"] == version("llm-assets")
    assert metadata["License-Expression"] == "Apache-2.0"
    assert str(metadata.get_payload()).startswith("# llm-assets")
    assert {"llm_assets/py.typed", "resources/py.typed"} < set(names)
    assert f"{path.removesuffix('METADATA')}licenses/LICENSE" in names


def test_two_builds_are_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()


def test_what_lies_beside_the_code_is_in_it_with_the_bytes_of_the_checkout(
    environment: Path, tmp_path: Path
) -> None:
    here = run(ROOT, sys.executable, "-c", FOLDERS).splitlines()
    there = run(tmp_path, environment / "python", "-c", FOLDERS).splitlines()
    assert all(Path(folder).is_relative_to(environment.parent) for folder in there)
    assert len(here) == len(there) == 6
    for of_checkout, installed in zip(here, there, strict=True):
        assert digests(installed) == digests(of_checkout)


def digests(folder: str) -> dict[str, str]:
    """By path from the folder above; without what the checkout alone is for."""
    above = Path(folder).parent
    files = {path.relative_to(above).as_posix(): path for path in Path(folder).rglob("*") if path.is_file()}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in files.items()
        if not name.startswith(FOR_THE_CHECKOUT_ALONE) and "__pycache__" not in name
    }


@pytest.mark.parametrize("package", ["llm_assets", "resources"])
def test_no_package_of_the_lock_has_a_top_level_package_of_the_same_name(
    environment: Path, tmp_path: Path, package: str
) -> None:
    said = run(tmp_path, environment / "python", "-c", OWNERS.format(package))
    assert set(said.strip("[]\n").replace("'", "").split(", ")) == {"llm-assets"}


def test_an_empty_folder_becomes_a_project_that_passes_its_check(environment: Path, tmp_path: Path) -> None:
    assert "  wrote  catalog\n" in run(tmp_path, environment / "llm-assets", "init")
    assert "1 models, 2 tenants" in run(tmp_path, environment / "llm-assets", "check")


@pytest.mark.engine
def test_it_knows_the_engines_by_the_locks_in_it(environment: Path, tmp_path: Path) -> None:
    list(lay_out(tmp_path))
    said = run(tmp_path, environment / "llm-assets", "engines", "status", LLM_ASSETS_ENGINES=str(ENGINES))
    assert said.count("installed for ") == 2
    assert "older lock" not in said


@pytest.mark.long
@pytest.mark.engine
def test_the_demo_runs_in_an_empty_folder(environment: Path, tmp_path: Path) -> None:
    ports = {f"LLM_ASSETS_{name}_PORT": str(free_port()) for name in ("UI", "MLFLOW", "GATEWAY", "METRICS")}
    settings = ports | {"LLM_ASSETS_ENGINES": str(ENGINES)}
    try:
        said = run(tmp_path, environment / "llm-assets", "demo", **settings)
        assert "  wrote  catalog\n" in said
        assert "support_bot of team-a" in said
        asked = ("ask", "support_bot", "--tenant", "team-a", "When are you open?")
        assert run(tmp_path, environment / "llm-assets", *asked, **settings).strip()
    finally:
        run(tmp_path, environment / "llm-assets", "down", **settings)
