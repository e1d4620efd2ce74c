"""An artifact's folder: links to its contents, and nothing else.

It appears by one rename when it is whole. Where a content was replaced or something was put into the
folder, each link is mended by a rename of its own, so a reader never meets a missing file.
"""

import os
import shutil
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from resources.artifact_store.artifacts import entries_of
from resources.node_cache.locks import locked
from resources.object_stores.disk_files import NO_HARD_LINK


@dataclass(frozen=True, kw_only=True)
class LinkedFolder:
    """A folder of links to `contents` (by path), and what it takes to make it.

    Attributes:
        making: The folder before it is whole, and after it was given up.
        link: A link on its way to a place in the folder.
        lock: Held by who makes or mends it.
        what: Whose folder it is, for messages.
    """

    folder: Path
    making: Path
    link: Path
    lock: Path
    contents: Mapping[str, Path]
    what: str


def show(linked: LinkedFolder, log: Callable[[str], None]) -> None:
    """Makes the folder, or mends it. Its contents are there."""
    if linked.folder.is_dir() and not differences(linked):
        return
    with locked(linked.lock, what=f"the folder of {linked.what} is being made", log=log):
        if linked.folder.is_dir():
            _mend(linked, log)
        else:
            _make(linked)


def differences(linked: LinkedFolder) -> dict[str, str]:
    """What is not as it should be in the folder, by path; contents are compared by identity, not read."""
    there = entries_of(linked.folder)
    foreign = {
        path: f"{path} is not a file of the artifact" for path in there.keys() - linked.contents.keys()
    }
    wrong = {
        path: f"{path} is missing" if path not in there else f"{path} is not the node's own copy"
        for path, content in linked.contents.items()
        if path not in there or not _same(linked.folder / path, there[path], content)
    }
    return foreign | wrong


def drop(linked: LinkedFolder) -> None:
    """Takes the folder away: at once for who looks, then file by file. Leftovers go with it."""
    linked.link.unlink(missing_ok=True)
    _remove(linked.making)
    if linked.folder.is_dir():
        linked.folder.rename(linked.making)
        _remove(linked.making)


def _make(linked: LinkedFolder) -> None:
    making = linked.making
    _remove(making)
    making.mkdir()
    for parent in {path.rpartition("/")[0] for path in linked.contents}:
        (making / parent).mkdir(parents=True, exist_ok=True)
    for path, content in linked.contents.items():
        _link(content, making / path)
    making.rename(linked.folder)


def _mend(linked: LinkedFolder, log: Callable[[str], None]) -> None:
    folder, link, there = linked.folder, linked.link, entries_of(linked.folder)
    for path, problem in differences(linked).items():
        log(f"Mending {folder}: {problem}.")
        if path not in linked.contents:
            (folder / path).unlink()
            continue
        link.unlink(missing_ok=True)
        _link(linked.contents[path], link)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        if path not in there and (folder / path).is_dir():
            shutil.rmtree(folder / path)
        link.replace(folder / path)


def _link(content: Path, target: Path) -> None:
    """A hard link, which goes on naming these very bytes whatever comes to lie at `content`.

    Where the file system has none, or the file belongs to another user, a symbolic one.
    """
    try:
        os.link(content, target)
    except OSError as error:
        if error.errno not in NO_HARD_LINK:
            raise
        target.symlink_to(content)


def _same(path: Path, there: os.stat_result, content: Path) -> bool:
    if stat.S_ISLNK(there.st_mode):
        return path.readlink() == content
    try:
        return os.path.samestat(there, content.lstat())
    except FileNotFoundError:
        return False


def _remove(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)
