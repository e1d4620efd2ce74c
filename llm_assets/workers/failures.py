"""Why a work order failed, in one line that a person can act on.

Covers what is met in practice: a full disk, memory, a diverged or impossible training. Anything
else is told in the engine's own words; the whole traceback is in the engine's log either way.
"""

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

_DISK_FULL = (
    "no space left on device",
    "disk quota exceeded",
    "pytorchstreamwriter failed writing",  # torch.save, and below when the disk fills up within a file
    "unexpected pos",
)
_GPU_MEMORY_FULL = ("cuda out of memory", "cublas_status_alloc_failed")
_CPU_MEMORY_FULL = ("defaultcpuallocator: can't allocate memory", "cannot allocate memory")
_NOTHING_TO_TRAIN_ON = ("cannot find sufficient samples", "cannot find valid samples")
_LONGEST_CAUSE = 500


class WorkerError(Exception):
    """An order that cannot be carried out; the text says why and what would help."""


def cause_of(error: BaseException, folder: Path) -> str:
    """One line: what went wrong and the remedy. `folder` is where the worker was writing."""
    if isinstance(error, WorkerError):
        return _one_line(error)
    said = " ".join(str(each) for each in _chain(error)).lower()
    if is_full_disk(error):
        return f"No disk space is left for {folder} ({_free(folder)}). Free some and run again."
    if _names(_GPU_MEMORY_FULL, said):
        return (
            "The GPU ran out of memory. Lower per_device_train_batch_size or cutoff_len, raise "
            f"gradient_accumulation_steps, or train with quantization_bit: 4. ({_one_line(error)})"
        )
    if isinstance(error, MemoryError) or _names(_CPU_MEMORY_FULL, said):
        return (
            "The machine ran out of memory. Lower per_device_train_batch_size or cutoff_len, "
            f"or take a smaller base model. ({_one_line(error)})"
        )
    if _names(_NOTHING_TO_TRAIN_ON, said):
        return (
            "The dataset is too short: no row is left to train on. Add rows; for `stage: pt` they must fill "
            "at least one block of cutoff_len tokens (or set `packing: false`)."
        )
    return f"{type(error).__name__}: {_one_line(error)}".removesuffix(": ")


def is_full_disk(error: BaseException) -> bool:
    """Whether it comes of a full disk, by its number or by what the engine says."""
    said = " ".join(str(each) for each in _chain(error)).lower()
    return any(_is_disk_full(each) for each in _chain(error)) or _names(_DISK_FULL, said)


def _chain(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def _is_disk_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _names(phrases: tuple[str, ...], said: str) -> bool:
    return any(phrase in said for phrase in phrases)


def _free(folder: Path) -> str:
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    return f"{shutil.disk_usage(existing).free / 2**20:.0f} MiB free"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST_CAUSE else text[: _LONGEST_CAUSE - 1] + "…"
