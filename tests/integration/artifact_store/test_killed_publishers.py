"""Killed at fifty random moments while publishing, on a disk and on GCS: nothing half, nothing sent twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.gcs import gcs_server

ROOT = Path(__file__).parents[3]


def a_folder(place: Path, *, files: int, size_bytes: int) -> Path:
    folder = place / "folder"
    (folder / "nested").mkdir(parents=True)
    for number in range(files):
        (folder / "nested" / f"part-{number}.safetensors").write_bytes(os.urandom(size_bytes))
    return folder


def killed(url: str, folder: Path, *, kills: int, **environment: str) -> dict[str, object]:
    module = "tests.integration.artifact_store.publish_and_be_killed"
    done = subprocess.run(
        [sys.executable, "-m", module, url, str(folder), str(kills), "7"],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def check(report: dict[str, object], *, at_least: int) -> None:
    assert report["half"] == []
    assert report["sent_twice"] == {}
    assert report["versions"] == 1
    assert int(str(report["killed_at_work"])) >= at_least


def test_on_a_disk(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, files=30, size_bytes=200_000)
    check(killed(f"file:{tmp_path}/store", folder, kills=30), at_least=15)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_on_a_gcs_server(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, files=12, size_bytes=300_000)
    with gcs_server(tmp_path / "gcs", bucket="models") as address:
        report = killed("gs://models/company", folder, kills=20, STORAGE_EMULATOR_HOST=address)
    check(report, at_least=10)
