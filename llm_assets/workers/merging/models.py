"""One base and several adapters to as many merged models: what is written, linked, copied and counted.

Order of work: everything that can be refused is refused before a byte is written. A weight file that an
adapter does not touch is the base's own (a reflink or a hard link, else a copy) under the base's known
SHA-256; without a known one it is read once. Files that are linked by a known hash are not read, so
damage in them shows when the merged model is read, and is then refused by name.
"""

import errno
import fcntl
import os
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_assets.workers.merging.adapters import ADAPTER_WEIGHTS, read_adapter
from llm_assets.workers.merging.base_models import Base, read_base
from llm_assets.workers.merging.changes import Changes, plan
from llm_assets.workers.merging.journal import (
    MERGE_VERSION,
    UNFINISHED,
    Journal,
    Written,
    check_sha256,
    copy_checked,
    sha256_of,
)
from llm_assets.workers.merging.streaming import Streaming, Target
from llm_assets.workers.merging.weight_files import WeightFile
from llm_assets.workers.reporting import Report
from llm_assets.workers.trained_files import ADAPTER_CONFIG, KEPT_SUFFIXES, MANIFEST

FICLONE = 0x40049409  # linux/fs.h: the new file shares the old one's blocks until one is written
CONFIG_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


@dataclass(frozen=True, kw_only=True)
class Request:
    """An adapter and the folder of the merged model. `adapter_files` are SHA-256 by file, where known."""

    adapter_folder: Path
    output_folder: Path
    adapter_files: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class MergedModel:
    """A merged model that is whole: its files, what was counted, and the largest error of rounding."""

    folder: Path
    files: tuple[Written, ...]
    ledger: Mapping[str, int]
    dtype: str

    def facts(self) -> dict[str, Any]:
        worst = max(self.files, key=lambda file: file.largest_error)
        return {
            "files": [file.as_file() for file in self.files],
            "ledger": dict(self.ledger),
            "dtype": self.dtype,
            "largest_error": worst.largest_error,
            "largest_error_in": worst.largest_error_in,
        }


def merge_models(
    base_folder: Path, requests: Sequence[Request], base_files: Mapping[str, str], report: Report
) -> list[MergedModel]:
    """Writes one merged model for each request; goes on where an interrupted merge of the same stopped.

    `base_files` are the SHA-256 of the base's files by name, where known.

    Raises:
        WorkerError: An adapter cannot be merged into this base, or a file is damaged; names it.
    """
    base = read_base(base_folder)
    planned = [plan(base, read_adapter(request.adapter_folder)) for request in requests]
    targets = [
        _target(request, changes, base_files) for request, changes in zip(requests, planned, strict=True)
    ]
    written = {target.folder: _copy_small_files(base, target.folder, base_files) for target in targets}
    for target in targets:
        for done in target.journal.finished.values():
            report.line(f"{done.path} was merged before the interruption.")
    progress = _Progress(report, base, targets)
    threads = max(1, len(os.sched_getaffinity(0)) - 1)  # reading and writing keep one busy with hashes
    with Streaming(base_files, threads=threads) as streaming:
        for file in base.files:
            _merge_file(file, targets, base_files, streaming, progress)
            for target in targets:
                finished = target.journal.finished[file.path.name]
                written[target.folder].append(finished)
                report.file(finished.as_file(), str(target.folder))
    return [
        MergedModel(
            folder=target.folder,
            files=tuple(written[target.folder]),
            ledger=target.changes.ledger(),
            dtype=weights_dtype(base),
        )
        for target in targets
    ]


def weights_dtype(base: Base) -> str:
    """What the configuration gives for the weights; else the type that most of them have."""
    said = base.config.get("dtype") or base.config.get("torch_dtype")
    sizes: Counter[str] = Counter()
    for tensor in base.tensors.values():
        sizes[tensor.dtype] += tensor.size_bytes
    most = sizes.most_common(1)[0][0]
    return str(said or CONFIG_DTYPES.get(most, most))


class _Progress:
    def __init__(self, report: Report, base: Base, targets: Sequence[Target]) -> None:
        self._report = report
        self._total = sum(
            file.size_bytes
            for file in base.files
            if any(file.path.name not in target.journal.finished for target in targets)
        )
        self._done = 0

    def __call__(self, read_bytes: int) -> None:
        self._done += read_bytes
        self._report.progress({"merged_bytes": self._done, "total_bytes": self._total})

    def file(self, file: WeightFile, what: str, seconds: float) -> None:
        self._report.line(f"{file.path.name}: {what} ({file.size_bytes / 2**20:.0f} MiB, {seconds:.1f} s).")


def _target(request: Request, changes: Changes, base_files: Mapping[str, str]) -> Target:
    hashes = {}
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        hashes[name] = sha256_of(request.adapter_folder / name)
        check_sha256(request.adapter_folder / name, request.adapter_files.get(name), hashes[name])
    fingerprint = {
        "version": MERGE_VERSION,
        "adapter": hashes,
        "base": [_identity(file.path, base_files) for file in changes.base.files],
    }
    folder = request.output_folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    return Target(folder=folder, changes=changes, journal=Journal(folder, fingerprint))


def _identity(path: Path, base_files: Mapping[str, str]) -> list[object]:
    status = path.stat()
    return [path.name, status.st_size, base_files.get(path.name) or status.st_mtime_ns]


def _merge_file(
    file: WeightFile,
    targets: Sequence[Target],
    base_files: Mapping[str, str],
    streaming: Streaming,
    progress: _Progress,
) -> None:
    started = time.monotonic()
    unfinished = [target for target in targets if file.path.name not in target.journal.finished]
    touched = [target for target in unfinished if _touches(target.changes, file)]
    if touched:
        streaming.merge(file, touched, progress)
        progress.file(file, "merged", time.monotonic() - started)
    untouched = [target for target in unfinished if target not in touched]
    sha256 = base_files.get(file.path.name)
    for target in untouched:
        sha256 = _link(file, target, sha256)
    if untouched:
        progress.file(file, "no adapter touches it; linked", time.monotonic() - started)


def _touches(changes: Changes, file: WeightFile) -> bool:
    return any(tensor.name in changes.by_target for tensor in file.tensors)


def _link(file: WeightFile, target: Target, sha256: str | None) -> str:
    sha256 = sha256 or sha256_of(file.path)
    final = target.folder / file.path.name
    unfinished = final.with_name(final.name + UNFINISHED)
    unfinished.unlink(missing_ok=True)
    _share(file.path, unfinished)
    unfinished.rename(final)
    target.journal.add(Written(path=final.name, size_bytes=file.size_bytes, sha256=sha256))
    return sha256


def _share(source: Path, copy: Path) -> None:
    """A reflink; a hard link where the file system has none; a copy from another file system."""
    try:
        with source.open("rb") as file, copy.open("xb") as clone:
            fcntl.ioctl(clone.fileno(), FICLONE, file.fileno())
    except OSError as error:
        copy.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        try:
            os.link(source, copy)
        except OSError:
            shutil.copyfile(source, copy)


def _copy_small_files(base: Base, folder: Path, base_files: Mapping[str, str]) -> list[Written]:
    """Configuration and tokenizer: copies, because what follows may write them anew."""
    written = []
    for source in sorted(base.folder.iterdir()):
        if not source.is_file() or source.name == MANIFEST or source.suffix not in KEPT_SUFFIXES:
            continue
        if source.suffix != ".safetensors":
            sha256 = copy_checked(source, folder / source.name, base_files.get(source.name))
            size_bytes = source.stat().st_size
            written.append(Written(path=source.name, size_bytes=size_bytes, sha256=sha256))
    return written
