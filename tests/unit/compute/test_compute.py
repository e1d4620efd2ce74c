"""What an engine gets to see, and what a work order that ended says."""

import subprocess
from pathlib import Path

import pytest

from resources.compute import LocalCompute, WorkOrder, WorkOrderError, _result


def test_the_package_is_that_of_the_installation_that_runs(tmp_path: Path) -> None:
    for name in ("old", "new", "new"):
        compute = LocalCompute(engines=str(tmp_path / "engines"), package=str(tmp_path / name))
        (tmp_path / name).mkdir(exist_ok=True)
        environment = compute._environment(tmp_path)
    assert (Path(environment["PYTHONPATH"]) / "llm_assets").resolve() == tmp_path / "new"


def ended(folder: Path, messages: list[dict[str, str]]) -> str:
    work = WorkOrder(engine="train", worker="train", order={}, folder=folder)
    with pytest.raises(WorkOrderError) as caught:
        _result(work, 1, messages)
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
