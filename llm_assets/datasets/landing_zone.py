"""The landing zone: the folder into which a tenant drops the files of one model's dataset.

Read are `*.json`, `*.jsonl`, `*.csv`, `*.parquet` and, for stage pt, `*.txt`; names that start with a dot
(uploads under way, macOS's `._x.json`) are not. They lie right in it or, as in a repository of the
Hugging Face Hub, in `data/`. A `dataset_info.json` in LLaMA-Factory's format may say more, and may name
subfolders.

A tenant must not reach another's files, and may exchange its own at any moment. So a landing zone is opened
once, no symbolic link is followed in it or on the way to it, and a file that is read twice has to be the same
both times. Hard links cannot be told from files and are not looked for.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Protocol

from llm_assets.datasets.limits import Limits
from llm_assets.datasets.mistakes import DatasetError, mistake
from llm_assets.datasets.parquet_rows import ParquetDecoder
from resources.beneath import Entry, NotFollowedError, OpenedFolder, opened

SUFFIXES = (".json", ".jsonl", ".csv", ".parquet", ".txt")
HUB_FOLDER = "data"
DOCUMENT = re.compile(r"(readme|licen[cs]e|notice|changelog)\b|.*\.md$", re.IGNORECASE)
DATASET_INFO = "dataset_info.json"
MOST_NESTED_FOLDERS = 20
LINKED = "is a symbolic link, and none is followed in a landing zone; put the file or folder itself there"


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file of a landing zone, as one look at it saw it."""

    path: Path
    size_bytes: int
    modified_ns: int


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """What changes when a file does; nobody can set the time of its last change (ctime)."""

    size_bytes: int
    modified_ns: int
    changed_ns: int
    inode: tuple[int, int]

    @staticmethod
    def of(status: os.stat_result) -> "Stamp":
        return Stamp(
            size_bytes=status.st_size,
            modified_ns=status.st_mtime_ns,
            changed_ns=status.st_ctime_ns,
            inode=(status.st_dev, status.st_ino),
        )


class LandingZone:
    """A landing zone that is open. The paths of its files name them, and open nothing by themselves."""

    def __init__(self, folder: OpenedFolder, limits: Limits) -> None:
        self.path, self.limits = folder.path, limits
        self.folder = folder
        self.parquet = ParquetDecoder(limits)
        self._stamps: dict[Path, Stamp] = {}
        self._sha256: dict[Path, str] = {}

    def open(self, path: Path) -> BufferedReader:
        """The file, the same one at every call.

        Raises:
            DatasetError: It is a link or lies behind one, is gone, is no regular file, or has changed since
                the first call.
        """
        try:
            file = self.folder.open(*self._parts(path))
        except NotFollowedError as error:
            raise _not_followed(error) from error
        except FileNotFoundError as error:
            if path in self._stamps:
                problem = "was taken away while the dataset was read; run again once it is back"
                raise mistake(path, problem) from error
            raise mistake(path, "does not exist; put the file there or take it out of the list") from error
        except OSError as error:
            raise mistake(
                path, f"cannot be read: {error.strerror}; let the platform's user read it"
            ) from error
        try:
            self._refuse_changed(path, Stamp.of(os.fstat(file.fileno())))
        except DatasetError:
            file.close()
            raise
        return file

    def checked(self, path: Path) -> Path:
        """The path itself, if its file can be opened and is what it was. Raises as `open`."""
        self.open(path).close()
        return path

    def sha256(self, path: Path) -> str:
        """SHA-256 (hex) of a file's bytes."""
        if path not in self._sha256:
            with self.open(path) as file:
                self._sha256[path] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._sha256[path]

    def entries(self, folder: Path) -> list[Entry]:
        """What lies in this folder of the landing zone, by name; nothing where there is no such folder."""
        try:
            return self.folder.entries(*self._parts(folder))
        except NotFollowedError as error:
            raise _not_followed(error) from error
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            problem = f"cannot be listed: {error.strerror}; let the platform's user read it"
            raise mistake(folder, problem) from error

    def find(self, path: Path) -> Entry | None:
        """The file, folder or link of that name, if there is one."""
        try:
            return self.folder.entry(*self._parts(path))
        except NotFollowedError as error:
            raise _not_followed(error) from error

    def data_files(self, folder: Path) -> tuple[Path, ...]:
        """The data files right in a folder, in the order of their names."""
        found = (entry.path for entry in self.entries(folder) if _is_data(entry))
        return tuple(path for path in found if path.name != DATASET_INFO)

    def walk(self, folder: Path) -> Iterator[Entry]:
        """All that lies below a folder, but what hidden folders hold."""
        waiting = [folder]
        while waiting:
            for entry in self.entries(waiting.pop()):
                yield entry
                if entry.is_folder and not entry.path.name.startswith("."):
                    _refuse_nested(entry, self.path)
                    waiting.append(entry.path)

    def refuse_oversized(self) -> None:
        """Raises DatasetError if its files have more bytes together than are read."""
        total = sum(file.size_bytes for file in source_files(self.folder))
        if total > self.limits.size_bytes:
            raise mistake(self.path, f"its files have {total:,} bytes together, {self.limits.over_size}")

    def _parts(self, path: Path) -> tuple[str, ...]:
        return path.relative_to(self.path).parts

    def _refuse_changed(self, path: Path, now: Stamp) -> None:
        before = self._stamps.setdefault(path, now)
        if now != before:
            sizes = f"{before.size_bytes} bytes, then {now.size_bytes}"
            raise mistake(
                path,
                f"changed while it was read ({sizes}); wait until it is whole, "
                "or write it under a name that starts with a dot and rename it when it is done",
            )


@contextmanager
def opened_landing_zone(landing_zone: Path, root: Path, limits: Limits) -> Iterator[LandingZone]:
    """The landing zone `<root>/<tenant>/<model>`, open as long as the block runs; `root` may be a link.

    Raises:
        DatasetError: There is none, or it or its tenant's folder is a link, which may lead to another tenant.
    """
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(opened(root, *landing_zone.relative_to(root).parts))
        except NotFollowedError as error:
            problem = f"{error.problem}; make it a folder that holds the tenant's own files"
            raise mistake(error.path, problem) from error
        except FileNotFoundError as error:
            problem = "there is no such folder; make it and put the dataset there"
            raise mistake(landing_zone, problem) from error
        except NotADirectoryError as error:
            raise mistake(landing_zone, "is not a folder; make it one and put the dataset there") from error
        zone = LandingZone(folder, limits)
        stack.callback(zone.parquet.close)
        yield zone


class Folder(Protocol):
    """A folder that is open, or the listing of one."""

    @property
    def path(self) -> Path: ...

    def entries(self, *parts: str) -> list[Entry]:
        """What lies in the folder that these names lead to, by name."""


def source_files(folder: Folder) -> tuple[SourceFile, ...]:
    """All files that may be part of the dataset, `dataset_info.json` too, by name; links as what they are.

    Only names and `stat` are read, so that a sensor can look at thousands of landing zones. Subfolders other
    than `data` are looked at where a `dataset_info.json` may name them.
    """
    here = folder.entries()
    listed = any(entry.path.name == DATASET_INFO for entry in here)
    found = [entry for entry in here if _is_data(entry)]
    for entry in here:
        if entry.is_folder and _is_seen(entry) and (listed or entry.path.name == HUB_FOLDER):
            found += _below(folder, entry.path, deep=listed)
    return tuple(
        SourceFile(path=entry.path, size_bytes=entry.status.st_size, modified_ns=entry.status.st_mtime_ns)
        for entry in sorted(found)
    )


def fingerprint(zone: LandingZone) -> str:
    """SHA-256 (hex) of the names and bytes of the landing zone's files.

    Raises:
        DatasetError: A file is a symbolic link or cannot be read, or there is too much.
    """
    zone.refuse_oversized()
    whole = hashlib.sha256()
    for file in source_files(zone.folder):
        name = file.path.relative_to(zone.path).as_posix()
        whole.update(f"{name}\0{zone.sha256(file.path)}\n".encode(errors="surrogateescape"))
    return whole.hexdigest()


def _below(top: Folder, folder: Path, *, deep: bool) -> list[Entry]:
    found, waiting = [], [folder]
    while waiting:
        here: list[Entry] = []
        with suppress(FileNotFoundError, NotADirectoryError, NotFollowedError):  # no folder any more
            here = top.entries(*waiting.pop().relative_to(top.path).parts)
        for entry in here:
            if _is_data(entry):
                found.append(entry)
            elif deep and entry.is_folder and _is_seen(entry):
                _refuse_nested(entry, top.path)
                waiting.append(entry.path)
    return found


def _refuse_nested(entry: Entry, top: Path) -> None:
    if len(entry.path.relative_to(top).parts) > MOST_NESTED_FOLDERS:
        problem = f"lies deeper than {MOST_NESTED_FOLDERS} folders within each other; move its files up"
        raise mistake(entry.path, problem)


def _is_seen(entry: Entry) -> bool:
    return not entry.path.name.startswith(".") and not DOCUMENT.match(entry.path.name)


def _is_data(entry: Entry) -> bool:
    return _is_seen(entry) and not entry.is_folder and entry.path.name.lower().endswith(SUFFIXES)


def _not_followed(error: NotFollowedError) -> DatasetError:
    linked = "symbolic link" in error.problem
    return mistake(error.path, LINKED if linked else f"{error.problem}; a dataset is made of files")
