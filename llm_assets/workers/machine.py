"""What a worker runs on: device, threads, caches, and what it used of them."""

import os
import resource
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from llm_assets.workers.failures import WorkerError

Device = Literal["cpu", "cuda"]
ENGINE_PACKAGES = (
    "llamafactory",
    "transformers",
    "peft",
    "trl",
    "accelerate",
    "datasets",
    "tokenizers",
    "safetensors",
    "torch",
    "bitsandbytes",
)


def prepare(device: Device, cache: Path) -> None:
    """Settles what libraries read from the environment as they are imported; call it before any of them.

    Nothing is fetched from a network, and a tenant's tokenized rows stay in `cache`, not in a home
    folder that tenants share. Without torchrun a worker has one GPU. Threads that wait must sleep:
    beside other work on the same cores, spinning costs up to three times the CPU seconds.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(default_threads()))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["HF_DATASETS_CACHE"] = str(cache)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif "LOCAL_RANK" not in os.environ:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    if device == "cuda":
        _require_cuda()


def default_threads() -> int:
    """One for each CPU that this process may use; OMP_NUM_THREADS in the environment wins."""
    return len(os.sched_getaffinity(0))


def _require_cuda() -> None:
    import torch

    if not torch.cuda.is_available():
        raise WorkerError(
            f"The order asks for a GPU, but torch {torch.__version__} sees none. Run it on a GPU machine "
            "with the CUDA set of the train engine, or on a CPU."
        )


def has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; without it float32 is about five times faster."""
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def peak_memory() -> dict[str, int]:
    """`peak_memory_bytes` of this process and, where a GPU was used, `peak_gpu_memory_bytes`."""
    import torch

    peak = {"peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    if torch.cuda.is_available():
        peak["peak_gpu_memory_bytes"] = int(torch.cuda.max_memory_allocated())
    return peak


def peak_resident_bytes() -> int:
    """The most memory that this process has held so far; unlike ru_maxrss, never its parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024


def available_memory_bytes() -> int:
    """What the kernel could give without swapping. A container's own limit is not looked at."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    available = next(line for line in lines if line.startswith("MemAvailable:"))
    return int(available.split()[1]) * 1024


def engine_versions() -> dict[str, Any]:
    versions = {}
    for package in ENGINE_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
