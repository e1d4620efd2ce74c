"""A full disk, told as one: which disk, how much is free, what to do."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resources.object_stores.objects import ObjectStoreError


@contextmanager
def disk_errors_named(doing: str, *, disk: str, path: Path) -> Iterator[None]:
    """Turns an OSError into an ObjectStoreError.

    Args:
        doing: The start of the error: "The object store file:/… could not write 'a/b'".
        disk: Whose disk it is that may be full: "the object store file:/…".
        path: Something on that disk.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise ObjectStoreError(f"{doing}: {error}. Look at that path and its permissions.") from error
        raise ObjectStoreError(
            f"{doing}: the disk of {disk} is full ({_free_mib(path)} MiB free). Nothing unfinished is "
            "visible; free some space and run again."
        ) from error


def _free_mib(path: Path) -> int:
    there = next(folder for folder in (path, *path.parents) if folder.is_dir())
    return shutil.disk_usage(there).free // 2**20
