"""An artifact's folder: hard links to its contents, and nothing else.

It appears by one rename when it is whole. Where a content was replaced or something was put into the
folder, each link is mended by a rename of its own, so a reader never meets a missing file.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from resources.artifact_store.artifacts import ArtifactFile
from resources.node_cache.locks import locked
from resources.node_cache.places import Places


def show(
    places: Places, digest: str, files: tuple[ArtifactFile, ...], *, uri: str, log: Callable[[str], None]
) -> Path:
    """The folder of an artifact whose contents are there."""
    folder = places.folder(digest)
    if folder.is_dir() and not differences(places, digest, files):
        return folder
    with locked(places.folder_lock(digest), what=f"the folder of {uri} is being made", log=log):
        if folder.is_dir():
            _mend(places, digest, files, log)
        else:
            _make(places, digest, files)
    return folder


def differences(places: Places, digest: str, files: tuple[ArtifactFile, ...]) -> dict[str, str]:
    """What is not as it should be in the folder, by path; contents are compared by identity, not read."""
    folder = places.folder(digest)
    there = _entries(folder)
    wanted = {file.path: places.content(file) for file in files}
    foreign = {path: f"{path} is not a file of the artifact" for path in there.keys() - wanted.keys()}
    wrong = {
        path: f"{path} is missing" if path not in there else f"{path} is not the cache's own copy"
        for path, content in wanted.items()
        if path not in there or not _same(there[path], content)
    }
    return foreign | wrong


def drop(places: Places, digest: str) -> None:
    """Takes the folder away: at once for who looks, then file by file. Leftovers go with it."""
    places.link(digest).unlink(missing_ok=True)
    _remove(places.making(digest))
    folder = places.folder(digest)
    if folder.is_dir():
        folder.rename(places.making(digest))
        _remove(places.making(digest))


def _make(places: Places, digest: str, files: tuple[ArtifactFile, ...]) -> None:
    making = places.making(digest)
    _remove(making)
    making.mkdir()
    for parent in {file.path.rpartition("/")[0] for file in files}:
        (making / parent).mkdir(parents=True, exist_ok=True)
    for file in files:
        os.link(places.content(file), f"{making}/{file.path}")
    making.rename(places.folder(digest))


def _mend(places: Places, digest: str, files: tuple[ArtifactFile, ...], log: Callable[[str], None]) -> None:
    folder, link = places.folder(digest), places.link(digest)
    contents = {file.path: places.content(file) for file in files}
    for path, problem in differences(places, digest, files).items():
        log(f"Mending {folder}: {problem}.")
        if path not in contents:
            (folder / path).unlink()
            continue
        link.unlink(missing_ok=True)
        link.hardlink_to(contents[path])
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        link.replace(folder / path)


def _entries(folder: Path) -> dict[str, os.stat_result]:
    """Everything below the folder that is not a folder; links are not followed."""
    found: dict[str, os.stat_result] = {}
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                else:
                    found[Path(entry.path).relative_to(folder).as_posix()] = os.lstat(entry.path)
    return found


def _same(there: os.stat_result, content: Path) -> bool:
    try:
        return os.path.samestat(there, content.lstat())
    except FileNotFoundError:
        return False


def _remove(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)
