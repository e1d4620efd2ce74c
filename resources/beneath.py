"""Opens what lies beneath a folder that other people write to, without following a link on the way.

Every part of a path is opened from the descriptor of the folder that it lies in, and never followed where it
is a symbolic link. So what is exchanged for a link, at whatever moment, is refused; and what was opened stays
the same folder or file, whatever its name leads to by then. The first folder is the operator's own and may be
a link.

Not covered: hard links, which cannot be told from files, and mounts.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from errno import ELOOP, ENOTDIR
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from resources.errors import LlmAssetsError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY  # a pipe without a writer is not waited for


class NotFollowedError(LlmAssetsError):
    """On the way to what was to be opened lies a symbolic link, or it is neither a file nor a folder."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path} {problem}")
        self.path, self.problem = path, problem


class Entry(NamedTuple):
    """What lies in a folder; of a link its own status, not that of what it leads to."""

    path: Path
    status: os.stat_result

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.status.st_mode)


class OpenedFolder:
    """A folder by its descriptor. `path` is its name, for messages alone.

    Raises (all methods):
        NotFollowedError: A part of the path is a link, or something else than was asked for.
        OSError: It is not there, or cannot be read; names the whole path.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @contextmanager
    def folder(self, *parts: str) -> Iterator["OpenedFolder"]:
        """The folder that these names lead to, as long as the block runs."""
        path, descriptor = self.path, os.dup(self._descriptor)
        try:
            for name in parts:
                path /= name
                descriptor, before = _open(descriptor, name, _FOLDER, path), descriptor
                os.close(before)
            yield OpenedFolder(path, descriptor)
        finally:
            os.close(descriptor)

    def open(self, *parts: str) -> BufferedReader:
        """The regular file that these names lead to."""
        with self.folder(*parts[:-1]) as folder:
            path = folder.path / parts[-1]
            descriptor = _open(folder._descriptor, parts[-1], _FILE, path)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise NotFollowedError(path, "is not a regular file")
        return os.fdopen(descriptor, "rb")

    def entry(self, *parts: str) -> Entry | None:
        """What these names lead to, None where there is no such thing; what is a link says so of itself."""
        try:
            with self.folder(*parts[:-1]) as folder:
                found = os.stat(parts[-1], dir_fd=folder._descriptor, follow_symlinks=False)
                return Entry(folder.path / parts[-1], found)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def entries(self, *parts: str) -> list[Entry]:
        """What lies in the folder that these names lead to, by name."""
        with self.folder(*parts) as folder, os.scandir(folder._descriptor) as listing:
            found = [
                Entry(folder.path / each.name, status)
                for each in listing
                if (status := _status(each)) is not None
            ]
        return sorted(found, key=lambda entry: entry.path)


@contextmanager
def opened(root: Path, *parts: str) -> Iterator[OpenedFolder]:
    """The folder `root`, which may be a link, or the one that names beneath it lead to."""
    with ExitStack() as stack:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, descriptor)
        yield stack.enter_context(OpenedFolder(root, descriptor).folder(*parts))


def _open(parent: int, name: str, flags: int, path: Path) -> int:
    if name in ("", ".", "..") or "/" in name:
        raise ValueError(f"{name!r} is not the name of something in a folder.")
    try:
        return os.open(name, flags, dir_fd=parent)
    except OSError as error:
        if error.errno in (ELOOP, ENOTDIR) and _is_link(parent, name):
            raise NotFollowedError(path, "is a symbolic link, and none is followed here") from error
        raise OSError(error.errno, error.strerror, str(path)) from error


def _is_link(parent: int, name: str) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:  # gone again
        return False


def _status(entry: "os.DirEntry[str]") -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except FileNotFoundError:  # gone since it was listed
        return None
