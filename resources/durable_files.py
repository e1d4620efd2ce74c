"""Files that are whole at any moment and, where it matters, outlive a power cut.

What is made here is its owner's alone: files 0600, folders that are missing 0700.
"""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def replace_file(path: Path, content: bytes | str, *, sync_folder: bool = False) -> None:
    """Writes beside it, syncs, renames: whoever reads finds the old content or the whole new one.

    Args:
        sync_folder: After a power cut the old content, or no file, would not do.
    """
    with _written_beside(path, content) as draft:
        draft.rename(path)
    if sync_folder:
        sync(path.parent)


def replace_json(path: Path, content: Any) -> None:
    """`replace_file` with compact JSON."""
    replace_file(path, json.dumps(content, separators=(",", ":")))


def create_file(path: Path, content: bytes | str) -> bool:
    """Writes a file only where there is none; False where another process was first, whose content stays."""
    if path.exists():
        return False
    with _written_beside(path, content) as draft:
        try:
            os.link(draft, path)
        except FileExistsError:
            return False
    return True


@contextmanager
def _written_beside(path: Path, content: bytes | str) -> Iterator[Path]:
    draft = private_folder(path.parent) / f".{path.name}.{uuid.uuid4().hex}"
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def remove_file(path: Path) -> None:
    """Deletes a file, for good when this returns; one that is gone already is fine."""
    path.unlink(missing_ok=True)
    if path.parent.is_dir():
        sync(path.parent)


def sync(path: Path) -> None:
    """A file's bytes, or a folder's new and removed names, are on the disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def private_folder(folder: Path) -> Path:
    """The folder, which only its owner may enter, like those above it that are made for it."""
    if not folder.is_dir():
        private_folder(folder.parent)
        folder.mkdir(exist_ok=True, mode=0o700)
    return folder
