"""Short private folders for temporary files and sockets, whatever the state folder is called.

The address of a unix socket has at most 107 bytes, and programs put sockets below TMPDIR under names of their
own. So TMPDIR is never a folder below the state folder: it is a folder of ours directly below `/tmp` (or
TMPDIR, where that is short), mode 0700. A work order's large temporary files still lie on the disk of the
order: its TMPDIR is a link in such a folder.

A folder of `linked_folder` is locked (flock) while it is used, which also keeps systemd-tmpfiles away; one
whose user was killed is removed by the next who needs one. Those of detached processes are removed with
their record (`LocalProcesses`). Sockets of our own lie in the state folder and are reached by way of a
descriptor or a relative path (`resources/gateway`).
"""

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from resources.errors import LlmAssetsError

ADDRESS_BYTES = 107  # unix(7): sun_path has 108, the last of them 0
PREFIX = "llm-assets-"
ORDER_PREFIX = f"{PREFIX}order-"
RANDOM_CHARACTERS = 8  # of tempfile.mkdtemp
LINK = "t"

SOCKETS_BELOW = {
    "multiprocessing's manager": "/pymp-12345678/listener-12345678",
    "vLLM's messages between processes": f"/{36 * 'u'}",
    "torch's shared memory manager": "/torch-shm-dir-123456/manager.sock",
    "Dagster's code server": f"/tmp{8 * 'u'}",  # noqa: S108  appended to a folder of ours
}
"""What programs put below TMPDIR and open as a socket, by who does."""

LONGEST_BASE = (
    ADDRESS_BYTES - max(map(len, SOCKETS_BELOW.values())) - len(f"/{ORDER_PREFIX}/{LINK}") - RANDOM_CHARACTERS
)
FALLBACKS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108  folders with random names are made below
STALE_S = 3600


class TemporaryFolderError(LlmAssetsError):
    """There is no folder in which temporary files and sockets can be kept."""


def base_folder() -> Path:
    """The folder that temporary folders are made in: TMPDIR, or the first usable one of the usual.

    Raises:
        TemporaryFolderError: None is short, writable, and safe from other users; says why each is not.
    """
    faults = []
    for candidate in _candidates():
        if fault := _fault(candidate):
            faults.append(f"{candidate} {fault}")
        else:
            return candidate
    raise TemporaryFolderError(
        f"There is no folder for temporary files and sockets: {'; '.join(faults)}. Set TMPDIR to a folder "
        f"that you can write to and whose path has at most {LONGEST_BASE} bytes."
    )


def _candidates() -> Iterator[Path]:
    """A TMPDIR of ours is that of a process that may end before what is started now: its parent then."""
    if given := os.environ.get("TMPDIR"):
        folder = Path(given).absolute()
        yield next(
            (each.parent for each in (folder, *folder.parents) if each.name.startswith(PREFIX)), folder
        )
    yield from map(Path, FALLBACKS)


def _fault(folder: Path) -> str | None:
    """Why temporary folders cannot be made there, if so."""
    size = len(os.fsencode(folder))
    if size > LONGEST_BASE:
        return f"has {size} bytes, {LONGEST_BASE} are the most with which every socket below it fits"
    try:
        found = folder.stat()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if not stat.S_ISDIR(found.st_mode) or not os.access(folder, os.W_OK | os.X_OK):
        return "is not a folder that this user can write to"
    others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if found.st_uid not in (0, os.geteuid()) or (others_write and not found.st_mode & stat.S_ISVTX):
        return "lets other users rename what is in it (neither its owner's alone nor sticky)"
    return None


@contextlib.contextmanager
def linked_folder(target: Path) -> Iterator[Path]:
    """A short path to `target`, a folder of the caller, for as long as the block runs.

    Raises:
        TemporaryFolderError: See `base_folder`.
    """
    base = base_folder()
    _remove_abandoned(base)
    folder = Path(tempfile.mkdtemp(prefix=ORDER_PREFIX, dir=base))
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        (folder / LINK).symlink_to(target, target_is_directory=True)
        yield folder / LINK
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _remove_abandoned(base: Path) -> None:
    """Of `linked_folder`s whose user was killed; a young one may be just about to be locked."""
    for folder in base.glob(f"{ORDER_PREFIX}*"):
        with contextlib.suppress(OSError):  # another's, in use, or removed meanwhile
            found = folder.lstat()
            young = time.time() - found.st_mtime < STALE_S
            if young or found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode):
                continue
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(descriptor)
