"""The landing zone: the folder into which a tenant drops the files of one model's dataset.

Read are `*.json`, `*.jsonl`, `*.csv`, `*.parquet` and, for stage pt, `*.txt`; names that start with a dot
(uploads under way, macOS's `._x.json`) are not. They lie right in it or, as in a repository of the
Hugging Face Hub, in `data/`. A `dataset_info.json` in LLaMA-Factory's format may say more, and may name
subfolders. A symbolic link may point anywhere inside the landing zone and nowhere else: a tenant
must not reach another's files. Hard links cannot be told from files and are not looked for.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llm_assets.datasets.mistakes import mistake

SUFFIXES = (".json", ".jsonl", ".csv", ".parquet", ".txt")
HUB_FOLDER = "data"
DOCUMENT = re.compile(r"(readme|licen[cs]e|notice|changelog)\b|.*\.md$", re.IGNORECASE)
DATASET_INFO = "dataset_info.json"
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file of a landing zone, as one look at it saw it."""

    path: Path
    size_bytes: int
    modified_ns: int


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """What changes when a file does."""

    size_bytes: int
    modified_ns: int
    inode: int


def source_files(landing_zone: Path) -> tuple[SourceFile, ...]:
    """All files that may be part of the dataset, `dataset_info.json` too, by name; none without the folder.

    Only names and `stat` are read, so that a sensor can look at thousands of landing zones. Subfolders other
    than `data` are looked at where a `dataset_info.json` may name them.
    """
    entries = list(_entries(landing_zone, deep=(landing_zone / DATASET_INFO).exists()))
    if not any(entry.name == DATASET_INFO for entry in entries):
        entries += _entries(landing_zone / HUB_FOLDER, deep=False)
    found = sorted(entries, key=lambda entry: entry.path)
    files = [(entry.path, entry.stat()) for entry in found if entry.is_file()]
    return tuple(
        SourceFile(path=Path(path), size_bytes=status.st_size, modified_ns=status.st_mtime_ns)
        for path, status in files
    )


def fingerprint(landing_zone: Path) -> str:
    """SHA-256 (hex) of the names and bytes of the landing zone's files.

    Raises:
        DatasetError: A file is a symbolic link that leaves the landing zone, or cannot be read.
    """
    whole = hashlib.sha256()
    for file in source_files(landing_zone):
        name = file.path.relative_to(landing_zone).as_posix()
        inside(file.path, landing_zone)
        whole.update(f"{name}\0{sha256_of(file.path)}\n".encode())
    return whole.hexdigest()


def dataset_files(folder: Path) -> tuple[Path, ...]:
    """The data files right in a folder, in the order of their names."""
    found = sorted(Path(entry.path) for entry in _entries(folder, deep=False))
    return tuple(path for path in found if path.name != DATASET_INFO)


def inside(path: Path, landing_zone: Path) -> Path:
    """The path itself, once it is known to be a plain file (or a link to one) of this landing zone.

    Raises:
        DatasetError: It leaves the landing zone, is missing, or is no regular file.
    """
    target = path.resolve()
    if not target.is_relative_to(landing_zone.resolve()):
        raise mistake(path, f"leads out of the landing zone to {target}; copy the file into {landing_zone}")
    if not target.exists():
        raise mistake(path, "does not exist; put the file there or take it out of the list")
    if not target.is_file():
        raise mistake(path, "is not a regular file; a dataset is made of files")
    return path


def refuse_linked(landing_zone: Path, root: Path) -> None:
    """A tenant's folder that is itself a link could lead to another tenant's rows.

    Raises:
        DatasetError: `<root>/<tenant>/<model>` leads somewhere else.
    """
    expected = root.resolve() / landing_zone.relative_to(root)
    if landing_zone.resolve() != expected:
        raise mistake(landing_zone, f"is a link to {landing_zone.resolve()}; put the files into {expected}")


def stamp(path: Path) -> Stamp:
    """What the file is now.

    Raises:
        DatasetError: It is gone.
    """
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise mistake(path, "was taken away while the dataset was read; run again once it is back") from error
    return Stamp(size_bytes=status.st_size, modified_ns=status.st_mtime_ns, inode=status.st_ino)


def refuse_changed(path: Path, before: Stamp) -> None:
    """Raises DatasetError if the file is no longer what it was."""
    now = stamp(path)
    if now != before:
        sizes = f"{before.size_bytes} bytes, then {now.size_bytes}"
        raise mistake(
            path,
            f"changed while it was read ({sizes}); wait until it is whole, "
            "or write it under a name that starts with a dot and rename it when it is done",
        )


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _entries(folder: Path, *, deep: bool) -> Iterator["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as listing:
            entries = list(listing)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.name.startswith(".") or DOCUMENT.match(entry.name):
            continue
        if deep and entry.is_dir(follow_symlinks=False):
            yield from _entries(Path(entry.path), deep=True)
        elif entry.name.lower().endswith(SUFFIXES) and not entry.is_dir():
            yield entry
