"""What an engine gets to see, and what a work order that ended says."""

import subprocess
from pathlib import Path

import pytest

from resources.artifact_store.store import ArtifactStore
from resources.local.compute import LocalCompute, _result
from resources.seams.compute import WorkOrderError
from tests.unit.engines.test_errors_in_log import MANAGER


def test_the_package_is_that_of_the_installation_that_runs(tmp_path: Path) -> None:
    for name in ("old", "new", "new"):
        compute = LocalCompute(
            store=ArtifactStore(url=f"file:{tmp_path / 'store'}"),
            work=str(tmp_path / "work"),
            engines=str(tmp_path / "engines"),
            package=str(tmp_path / name),
        )
        (tmp_path / name).mkdir(exist_ok=True)
        environment = compute._environment(tmp_path, tmp_path)
    assert (Path(environment["PYTHONPATH"]) / "llm_assets").resolve() == tmp_path / "new"


def ended(folder: Path, messages: list[dict[str, str]], *, earlier_bytes: int = 0) -> str:
    with pytest.raises(WorkOrderError) as caught:
        _result("train", folder, 1, messages, earlier_bytes)
    return str(caught.value)


def test_a_work_order_that_could_not_say_why_it_failed_names_the_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small disk")
    try:
        assert f"the disk of {disk} is full (1 MiB free)" in ended(disk, [])
        assert "failed: too long" in ended(disk, [{"failure": "too long"}])
    finally:
        subprocess.run(["umount", disk], check=True)
    assert "the engine ended with exit code 1. The end of its log" in ended(tmp_path, [])


def test_an_engines_own_last_error_is_shown_not_its_messengers(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text(MANAGER)
    said = ended(tmp_path, [{"failure": "EOFError"}])
    assert "failed: OSError: AF_UNIX path too long (passed on as EOFError)\n" in said
    assert f"The whole log is in {log}" in said
    assert "failed: ValueError: no" in ended(tmp_path, [{"failure": "ValueError: no"}])
    assert "Its last error: OSError: AF_UNIX path too long. The end of its log:" in ended(tmp_path, [])


def test_what_an_earlier_try_said_is_not_this_ones_cause(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text(MANAGER)
    said = ended(tmp_path, [{"failure": "EOFError"}], earlier_bytes=log.stat().st_size)
    assert "failed: EOFError\n" in said
    assert "AF_UNIX" not in ended(tmp_path, [], earlier_bytes=log.stat().st_size)
