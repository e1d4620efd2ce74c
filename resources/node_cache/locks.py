"""Locks on files (flock): they hold between processes of different containers, and end with their holder.

Whoever holds a file exclusively may unlink or rename it. So everyone who gets a lock looks whether the file
still stands under its name, and opens it anew where it does not. NFS locks no file exclusively that is open
for reading only, and some of the cache's may not be written: the cache is for a node's own disk.
"""

import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from resources.artifact_store.artifacts import ArtifactError

WAIT_S = 4 * 3600  # a model of hundreds of GB over a slow line
TELL_AFTER_S = 0.5
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.005, 0.2


def try_lock(path: Path, *, shared: bool = False) -> int | None:
    """A descriptor that holds the file's lock, or None where another's lock stands against it."""
    while True:
        descriptor = _opened(path)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            os.close(descriptor)
            if error.errno != errno.EBADF:
                raise
            raise ArtifactError(
                f"{path} cannot be locked: it lies on a network disk (NFS). "
                "Set LLM_ASSETS_CACHE to a folder on a disk of the node's own."
            ) from error
        if _stands_at(path, descriptor):
            return descriptor
        os.close(descriptor)


def _opened(path: Path) -> int:
    """For writing where that is allowed, which is what an exclusive lock on NFS needs."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_CREAT, 0o600)


def unlock(descriptor: int) -> None:
    """Frees it even where a forked child has a copy of the descriptor."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


@contextmanager
def locked(
    path: Path,
    *,
    what: str,
    shared: bool = False,
    kept: bool = False,
    log: Callable[[str], None],
    stop: threading.Event | None = None,
    timeout_s: float = WAIT_S,
) -> Iterator[int]:
    """Holds the file's lock, waiting for it and saying so.

    The file is made where there is none. It goes with the lock, unless that is shared or the file is `kept`.

    Args:
        what: What other processes are doing while one waits; it stands in the log and in the error.
        stop: Set when waiting on would be in vain.

    Raises:
        ArtifactError: The lock was not free within `timeout_s` seconds, or `stop` was set.
    """
    descriptor = _wait_for(path, what, shared, log, stop or threading.Event(), timeout_s)
    try:
        yield descriptor
    finally:
        if not (shared or kept):
            path.unlink(missing_ok=True)
        unlock(descriptor)


def _wait_for(
    path: Path,
    what: str,
    shared: bool,
    log: Callable[[str], None],
    stop: threading.Event,
    timeout_s: float,
) -> int:
    started, told, pause_s = time.monotonic(), False, SHORTEST_PAUSE_S
    while (descriptor := try_lock(path, shared=shared)) is None:
        waited_s = time.monotonic() - started
        if waited_s > timeout_s:
            raise ArtifactError(
                f"Another process has held {path} for over {timeout_s:g} s: {what}. "
                "End it (`fuser` names it), then try again; nothing that was fetched is lost."
            )
        if waited_s > TELL_AFTER_S and not told:
            log(f"Waiting for another process: {what}.")
            told = True
        if stop.wait(pause_s):
            raise ArtifactError(f"No longer waiting for another process ({what}): the work was given up.")
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
    return descriptor


def _stands_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
