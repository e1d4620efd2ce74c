"""One base and several adapters to as many merged models: what is written, linked, copied and counted.

Order of work: everything that can be refused is refused before a byte is written. A weight file that an
adapter does not touch is the base's own (a reflink or a hard link, else a copy) under the base's known
SHA-256; without a known one it is read once. Files that are linked by a known hash are not read, so
damage in them shows when the merged model is read, and is then refused by name.

Where the adapter unties embeddings that are one tensor in the base, the merged model has both, the output
embeddings in a file of their own, and its configuration says so.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llm_assets.workers.merging.adapters import ADAPTER_WEIGHTS, read_adapter
from llm_assets.workers.merging.base_models import CONFIG, Base, read_base
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
from llm_assets.workers.merging.tying import untied
from llm_assets.workers.merging.weight_files import INDEX, Tensor, WeightFile
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
    """A merged model that is whole: its files, and what was counted."""

    folder: Path
    files: tuple[Written, ...]
    ledger: Mapping[str, int]
    dtype: str

    def facts(self) -> dict[str, object]:
        return {
            "files": [file.as_file() for file in self.files],
            "ledger": dict(self.ledger),
            "dtype": self.dtype,
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
    written = {target.folder: _write_small_files(target, base_files) for target in targets}
    for target in targets:
        for done in target.journal.finished.values():
            report.line(f"{done.path} was merged before the interruption.")
        if target.changes.untied:
            report.line("The adapter changed one of two tied embeddings: the merged model has two tensors.")
    progress = _Progress(report, base, targets)
    threads = max(1, len(os.sched_getaffinity(0)) - 1)  # reading and writing keep one busy with hashes
    with Streaming(base_files, threads=threads) as streaming:
        for file in base.files:
            _merge_file(file, targets, base_files, streaming, progress)
            for target in targets:
                _tell(target.journal.finished[target.name_of(file)], target, written, report)
        for target in targets:
            if target.changes.output:
                added = _add_output(target, target.changes.output, streaming, progress)
                _tell(added, target, written, report)
    return [
        MergedModel(
            folder=target.folder,
            files=tuple(written[target.folder]),
            ledger=target.changes.ledger(),
            dtype=weights_dtype(base),
        )
        for target in targets
    ]


def _tell(finished: Written, target: Target, written: dict[Path, list[Written]], report: Report) -> None:
    written[target.folder].append(finished)
    report.file(finished.as_file())


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
            if any(target.name_of(file) not in target.journal.finished for target in targets)
        ) + sum(target.changes.output.size_bytes for target in targets if target.changes.output)
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
    return Target(
        folder=folder,
        changes=changes,
        journal=Journal(folder, fingerprint),
        renamed=_renamed(changes.base) if changes.output else {},
    )


def _renamed(base: Base) -> dict[str, str]:
    """The files' names where one more is added: `model.safetensors` would hide all others from a loader."""
    return {file.path.name: _shard(number, base) for number, file in enumerate(base.files, start=1)}


def _shard(number: int, base: Base) -> str:
    return f"model-{number:05}-of-{len(base.files) + 1:05}.safetensors"


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
    unfinished = [target for target in targets if target.name_of(file) not in target.journal.finished]
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


def _add_output(target: Target, output: Tensor, streaming: Streaming, progress: _Progress) -> Written:
    """The output embeddings that the base has none of, in a file of their own."""
    base = target.changes.base
    name = _shard(len(base.files) + 1, base)
    if name not in target.journal.finished:
        assert base.input_embeddings is not None, "the output embeddings were made of them"
        path, _ = base.place_of(base.input_embeddings.name)
        streaming.add(output, path, target, name, progress)
    return target.journal.finished[name]


def _touches(changes: Changes, file: WeightFile) -> bool:
    return any(tensor.name in changes.by_target for tensor in file.tensors)


def _link(file: WeightFile, target: Target, sha256: str | None) -> str:
    sha256 = sha256 or sha256_of(file.path)
    final = target.folder / target.name_of(file)
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
            os.link(source.resolve(), copy)  # an input may be a link, an output may not
        except OSError:
            shutil.copyfile(source, copy)


def _write_small_files(target: Target, base_files: Mapping[str, str]) -> list[Written]:
    """Configuration and tokenizer: copies, because what follows may write them anew."""
    written = []
    for source in sorted(target.changes.base.folder.iterdir()):
        if not source.is_file() or source.name == MANIFEST or source.suffix not in KEPT_SUFFIXES:
            continue
        if source.suffix != ".safetensors" and not (source.name == INDEX and target.changes.output):
            sha256 = copy_checked(source, target.folder / source.name, base_files.get(source.name))
            size_bytes = source.stat().st_size
            written.append(Written(path=source.name, size_bytes=size_bytes, sha256=sha256))
    if not target.changes.untied:
        return written
    anew = {CONFIG: untied(target.changes.base.config)}
    if target.changes.output:
        anew[INDEX] = _index(target, target.changes.output)
    kept = [each for each in written if each.path not in anew]
    return kept + [_write_json(target.folder / name, content) for name, content in anew.items()]


def _index(target: Target, output: Tensor) -> dict[str, object]:
    base = target.changes.base
    places = {tensor.name: target.name_of(file) for file in base.files for tensor in file.tensors}
    places[output.name] = _shard(len(base.files) + 1, base)
    total = sum(tensor.size_bytes for tensor in (*base.tensors.values(), output))
    return {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}


def _write_json(path: Path, content: Mapping[str, object]) -> Written:
    raw = (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()
    path.write_bytes(raw)
    return Written(path=path.name, size_bytes=len(raw), sha256=hashlib.sha256(raw).hexdigest())
