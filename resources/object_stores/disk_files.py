"""How a file comes into a folder whole: written or linked under another name, synced, then named."""

import ctypes
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from resources.durable_files import sync
from resources.object_stores.hashing import pour
from resources.object_stores.objects import UNFINISHED, Moved, Transferred

NO_HARD_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP)
LIBC = ctypes.CDLL(None, use_errno=True)
KERNEL_COPY = 256 * 1024 * 1024
"""Bytes asked of one copy_file_range call; none of them pass through this process."""


def files_below(folder: Path) -> Iterator[Path]:
    """Every finished file below `folder`, in no order; none where there is no such folder."""
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.name.startswith(UNFINISHED):
            continue
        if entry.is_dir():
            yield from files_below(Path(entry.path))
        else:
            yield Path(entry.path)


def bring(source: Path, temporary: Path, moved: Moved) -> Transferred:
    """Links `source` to `temporary`, or copies it from another disk; hashed in the one read."""
    hasher = hashlib.sha256()
    if linked(source, temporary):
        with temporary.open("rb") as stream:
            size_bytes = pour(stream, None, moved, hasher)
    else:
        with source.open("rb") as stream, temporary.open("wb") as written:
            size_bytes = pour(stream, written, moved, hasher)
    return Transferred(size_bytes=size_bytes, sha256=hasher.hexdigest())


def copy_inside(source: Path, temporary: Path) -> None:
    """A hard link, or a copy by the kernel (a reflink where the file system has them)."""
    if linked(source, temporary):
        return
    with source.open("rb") as stream, temporary.open("wb") as written:
        while os.copy_file_range(stream.fileno(), written.fileno(), KERNEL_COPY):
            pass


def linked(source: Path, target: Path) -> bool:
    """Makes a hard link, of a symbolic link to what it leads to; False where these places cannot have one."""
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno not in NO_HARD_LINK:
            raise
        return False
    return True


def appear(temporary: Path, target: Path) -> None:
    """Names a finished file, in place of what has that name. It is on the disk after the next `settle`."""
    _in_its_folder(target, lambda: temporary.replace(target))


def appear_alone(temporary: Path, target: Path) -> bool:
    """Names a finished file only where nothing has that name; a hard link is exclusive on NFS too."""
    sync(temporary)
    try:
        _in_its_folder(target, lambda: os.link(temporary, target))
    except FileExistsError:
        return target.exists() and temporary.samefile(target)  # NFS may link and lose its answer
    sync(target.parent)
    return True


def settle(folder: Path) -> None:
    """Brings all that was written to the file system of `folder` to its disk: one call for any number."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if LIBC.syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)


def _in_its_folder(target: Path, name: Callable[[], object]) -> None:
    """Names the file in its folder, which is made where it is not there or a `delete` removed it, empty."""
    if target.parent.is_dir():
        with suppress(FileNotFoundError):
            name()
            return
    while True:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            name()
        except FileNotFoundError:
            if target.parent.is_dir():
                raise
        else:
            return


def remove_empty_folders(folder: Path, root: Path) -> None:
    """Removes `folder` and those above it, up to `root`, as far as they are empty."""
    while folder != root:
        try:
            folder.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                raise
            return
        folder = folder.parent
