"""Which packages an engine is made of: a lock with hashes for each engine and device, beside its Dockerfile.

Only the standard library is used here: the images are built from this code, before anything is installed.
"""

import hashlib
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from resources.errors import LlmAssetsError
from resources.shipped_files import LOCKS

EngineName = Literal["train", "serve"]
Device = Literal["cpu", "cuda"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)

# Goes into the digest of a lock: raise it when what is done to an environment after the lock changes.
BUILD_REVISION = 2
NVIDIA_SMI_S = 60  # it takes seconds where the driver is not kept loaded


class EngineError(LlmAssetsError):
    """An engine's environment cannot be made, or is not there."""


@dataclass(frozen=True, kw_only=True)
class InstalledEngine:
    """An engine that is there: what it is made of decides what it makes."""

    engine: EngineName
    device: Device
    lock_digest: str
    versions: Mapping[str, str] = field(default_factory=dict)


def lock_file(engine: EngineName, device: Device) -> Path:
    """The lock of one engine and device; an EngineError says how to get it when it is missing."""
    path = LOCKS / engine / f"{device}.lock.txt"
    if not path.is_file():
        raise EngineError(
            f"No lock of the {engine} engine for {device}: {path} is missing; `make lock` makes it"
        )
    return path


def lock_digest(engine: EngineName, device: Device) -> str:
    """Names what an environment is made of; the same lock gives the same digest on every machine."""
    content = lock_file(engine, device).read_bytes() + f"revision {BUILD_REVISION}".encode()
    return hashlib.sha256(content).hexdigest()


def locked(engine: EngineName, device: Device) -> dict[str, str]:
    """Package and version, as the lock pins them."""
    lines = lock_file(engine, device).read_text().splitlines()
    pins = (line.split(" ")[0].partition("==") for line in lines if "==" in line and line[0].isalnum())
    return {name: version.removeprefix("=") for name, _, version in pins}  # `===` is a pin too


def device_here() -> Device:
    """cuda where an NVIDIA GPU and its driver can be seen, cpu elsewhere. EngineError: the driver hangs."""
    if Path("/dev/nvidia0").exists():
        return "cuda"
    if shutil.which("nvidia-smi") is None:
        return "cpu"
    try:
        listing = subprocess.run(
            ["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=NVIDIA_SMI_S
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(
            f"`nvidia-smi --list-gpus` did not answer in {NVIDIA_SMI_S} s: the NVIDIA driver hangs. "
            "Restart the machine, or say which engine you want: --device cpu"
        ) from error
    return "cuda" if listing.returncode == 0 and "GPU 0" in listing.stdout else "cpu"
