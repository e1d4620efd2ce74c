"""What the platform writes is its owner's alone: folders 0700, files 0600, from their creation on.

One umask says so, and every process begins with it: `keep_private` in the command line and in the code
location, and `processes/launcher.py` for every detached process (it can import nothing, so it says the same
number itself). What they start inherits it. Code that gives a file another mode (`chmod`, a copied mode)
gives nothing to others either.

Not covered: folders with a default ACL, where the kernel takes the ACL for the umask. That is how a store is
shared with a group on purpose (docs/reference/access.md).
"""

import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from resources.durable_files import create_file

OTHERS = stat.S_IRWXG | stat.S_IRWXO
SECRET_BYTES = 32


def keep_private() -> None:
    """From now on this process and those that it starts make files which only their owner can open."""
    os.umask(OTHERS)


def secret_in(file: Path) -> str:
    """The secret that lies there, made where there is none: random, for its owner alone, never half."""
    create_file(file, secrets.token_urlsafe(SECRET_BYTES))
    return file.read_text()


def is_open_to_others(path: Path) -> bool:
    return bool(path.lstat().st_mode & OTHERS)


def open_to_others(folder: Path, *, apart_from: Path) -> Iterator[Path]:
    """What others than the owner may open, `folder` itself included; nothing where there is no folder.

    Links are not followed. Below `apart_from` nothing is looked at: engines are public packages, by the
    hundred thousand files.
    """
    if folder.is_symlink() or not folder.exists() or folder == apart_from:
        return
    if is_open_to_others(folder):
        yield folder
    if folder.is_dir():
        for entry in sorted(folder.iterdir()):
            yield from open_to_others(entry, apart_from=apart_from)


def close_to_others(path: Path) -> bool:
    """Takes from others what they may do with it; False where it belongs to another user."""
    try:
        path.chmod(stat.S_IMODE(path.lstat().st_mode) & ~OTHERS)
    except PermissionError:
        return False
    return True
