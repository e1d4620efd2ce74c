"""Brings one file's content into the cache: once, whoever asks, and every byte compared.

A content stands under its own hash, so it is whole and right or it is found out here. It is not synced
to the disk: what a power failure damages, the next look finds and fetches again.
"""

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from resources.artifact_store.artifacts import ArtifactError, ArtifactFile
from resources.node_cache.locks import locked
from resources.node_cache.places import Places

Download = Callable[[ArtifactFile, Path], str]
"""Brings one file to a path, into the file that is there, going on from the prefix that it may hold; gives
the SHA-256 of the whole."""


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """What brings the files of one artifact. `stop` is set when the others of it failed."""

    places: Places
    uri: str
    download: Download
    log: Callable[[str], None]
    stop: threading.Event

    def bring(self, file: ArtifactFile) -> None:
        """Reads the content; where it is missing or damaged, fetches it or waits for who does.

        Raises:
            ArtifactError: The store gave other bytes than were published, twice.
        """
        content, part = self.places.content(file), self.places.part(file)
        while not self.stop.is_set():
            seen = _identity(content)
            problem = damage(content, file) if seen else f"{file.path} is missing"
            if problem is None:
                return
            what = f"{file.path} of {self.uri} is being fetched"
            with locked(part, what=what, kept=True, log=self.log, stop=self.stop):
                if _identity(content) == seen:
                    if seen:
                        self.log(f"{self.uri}: {problem} in the cache ({content}). Fetching it again.")
                    self._fetch(file, part, content)
                    return
                part.unlink()  # another process brought it, and this is a new part: look again, unlocked

    def _fetch(self, file: ArtifactFile, part: Path, content: Path) -> None:
        for last in (False, True):
            _make_usable(part, file)
            sha256 = self.download(file, part)
            size_bytes = part.stat().st_size
            if (sha256, size_bytes) == (file.sha256, file.size_bytes):
                part.chmod(0o400)
                _move(part, content)
                return
            os.truncate(part, 0)
            problem = f"{file.path} came with {size_bytes} bytes and SHA-256 {sha256}; published were "
            problem += f"{file.size_bytes} bytes and {file.sha256}"
            if not last:
                self.log(f"{self.uri}: {problem}. Fetching it from its start.")
        raise ArtifactError(
            f"{self.uri}: {problem}. That was the second time, so the store itself holds other bytes "
            "than were published, or something on the way alters them: publish the version anew."
        )


def damage(path: Path, file: ArtifactFile) -> str | None:
    """What is wrong with the file at `path`, read to its last byte; None when nothing is."""
    try:
        with path.open("rb") as stream:
            size_bytes = os.fstat(stream.fileno()).st_size
            if size_bytes != file.size_bytes:
                return f"{file.path} has {size_bytes} bytes, published were {file.size_bytes}"
            if hashlib.file_digest(stream, "sha256").hexdigest() != file.sha256:
                return f"the bytes of {file.path} are not those that were published"
    except FileNotFoundError:
        return f"{file.path} is missing"
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return f"{file.path} cannot be read ({error})"
    return None


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Tells a content from the one that replaced it, even on the same inode number."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _make_usable(part: Path, file: ArtifactFile) -> None:
    """Writable, where a kill came between the last two steps of a fetch, and no longer than it will be."""
    there = part.stat()
    if not there.st_mode & stat.S_IWUSR:
        part.chmod(0o600)
    if there.st_size > file.size_bytes:
        os.truncate(part, 0)


def _move(part: Path, content: Path) -> None:
    """Its shelf is made by the first content that comes to it."""
    try:
        part.replace(content)
    except FileNotFoundError:
        content.parent.mkdir(exist_ok=True)
        part.replace(content)
