"""The Dockerfiles, as far as that can be seen without a container engine."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from tests.conftest import ROOT

COPY = re.compile(r"^COPY (?!--from)(.+) (\S+)$", re.MULTILINE)


@pytest.mark.parametrize("image", ["train", "serve"])
def test_an_engine_s_image_has_all_that_its_build_needs(image: str, tmp_path: Path) -> None:
    stage = (ROOT / "images" / image / "Dockerfile").read_text().split("\nFROM ")[1]
    for sources, target in COPY.findall(stage):
        for source in sources.split():
            _copy(ROOT / source, tmp_path / target, into=target.endswith("/"))
    code = f"from resources.engines import builds; print(builds.lock_file({image!r}, 'cuda'))"
    bare = [sys.executable, "-S", "-c", code]  # -S: nothing is installed yet
    done = subprocess.run(bare, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(tmp_path / "images" / image / "cuda.lock.txt"), done.stderr


def _copy(source: Path, target: Path, *, into: bool) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
        return
    target = target / source.name if into else target
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


@pytest.mark.parametrize("image", ["platform", "train", "serve"])
def test_what_an_image_copies_is_let_through_by_the_ignore_file(image: str) -> None:
    allowed = {line[1:] for line in _lines(".dockerignore") if line.startswith("!")}
    text = (ROOT / "images" / image / "Dockerfile").read_text()
    copied = {source.split("/")[0] for sources, _ in COPY.findall(text) for source in sources.split()}
    assert copied - {"."} <= allowed


def test_secrets_of_an_env_file_reach_neither_git_nor_an_image() -> None:
    assert "/.env" in _lines(".gitignore")
    assert _lines(".dockerignore")[-1] == "**/.env"  # the last rule that matches decides


def _lines(name: str) -> list[str]:
    return (ROOT / name).read_text().splitlines()


def test_slimming_changes_no_file_that_another_environment_shares(tmp_path: Path) -> None:
    packages = tmp_path / "venv" / "lib" / "python3.11" / "site-packages"
    module, tests = packages / "spacy" / "tokens.so", packages / "numpy" / "tests" / "test_all.py"
    for file in (module, tests):
        file.parent.mkdir(parents=True)
    shutil.copyfile(next(Path(orjson.__file__).parent.glob("*.so")), module)
    tests.touch()
    shared = tmp_path / "cache.so"
    shared.hardlink_to(module)
    before = shared.read_bytes()
    slim = str(ROOT / "images" / "platform" / "slim.py")
    subprocess.run([sys.executable, slim, str(tmp_path / "venv")], check=True)
    assert shared.read_bytes() == before
    assert not shared.samefile(module)
    assert not tests.parent.exists()
