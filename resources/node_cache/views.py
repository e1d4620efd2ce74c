"""A view: an artifact of a store on this very disk as whoever reads it sees it, its files and nothing else.

Engines take in every file of a folder that looks like theirs (`*.safetensors`, `adapter_config.json`). So
none is given a version's folder in the store, into which something may be put at any moment, but a folder of
links to the files that the manifest lists. Hard links name the bytes that were verified, whatever comes to
lie in the store in their place. A view stands while its lease is locked, and goes with the last who holds it;
what a killed process left goes when a version of the same line is held again, or when its version is deleted.

Does not cover: somebody who writes into a file in place, and, where the file system has no hard links or the
store's files belong to another user, somebody who exchanges a file after it was verified.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from resources.artifact_store.artifacts import Artifact, ArtifactError, Line, entries_of
from resources.node_cache.folders import LinkedFolder, drop, show
from resources.node_cache.held import Held
from resources.node_cache.locks import locked, try_lock, unlock

NAMED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOENT)
Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Views:
    """The views below `root`, which is on the same disk as the store."""

    root: Path

    @contextmanager
    def hold(self, artifact: Artifact, folder: Path, log: Log) -> Iterator[Held]:
        """The view of an artifact whose files lie in `folder`; nothing is read.

        Raises:
            ArtifactError: It cannot be made, or a file in `folder` is gone or no file.
        """
        self._sweep(artifact.line)
        lease = self._lease(artifact.line, artifact.version)
        with self._named(artifact):
            for place in (lease.parent, self.root / str(artifact.line)):
                place.mkdir(parents=True, exist_ok=True)
        try:
            with locked(lease, what=f"the view of {artifact.uri} is being removed", shared=True, log=log):
                linked = self._linked(artifact, folder)
                with self._named(artifact):
                    _refuse_missing(artifact, folder)
                    show(linked, log)
                _refuse_links(artifact, linked)
                yield Held(folder=linked.folder, lease=lease)
        finally:
            self._drop(artifact.line, artifact.version)

    def drop(self, artifact: Artifact) -> None:
        """Takes the view away, unless somebody holds it."""
        self._drop(artifact.line, artifact.version)

    def _sweep(self, line: Line) -> None:
        leases = self.root / "leases" / str(line)
        for lease in list(leases.iterdir()) if leases.is_dir() else ():
            if not lease.name.startswith("."):
                self._drop(line, lease.name)

    def _drop(self, line: Line, version: str) -> None:
        lease = self._lease(line, version)
        if not lease.is_file() or (descriptor := try_lock(lease)) is None:
            return
        try:
            drop(self._place(line, version))
            lease.unlink()
        finally:
            unlock(descriptor)

    def _linked(self, artifact: Artifact, folder: Path) -> LinkedFolder:
        contents = {file.path: folder / file.path for file in artifact.files}
        return self._place(artifact.line, artifact.version, contents=contents, what=artifact.uri)

    def _place(
        self, line: Line, version: str, *, contents: dict[str, Path] | None = None, what: str = ""
    ) -> LinkedFolder:
        beside, lease = self.root / str(line), self._lease(line, version)
        return LinkedFolder(
            folder=beside / version,
            making=beside / f".{version}",
            link=beside / f".{version}.link",
            lock=lease.with_name(f".{version}.making"),
            contents=contents or {},
            what=what,
        )

    def _lease(self, line: Line, version: str) -> Path:
        return self.root / "leases" / str(line) / version

    @contextmanager
    def _named(self, artifact: Artifact) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in NAMED:
                raise
            raise ArtifactError(
                f"{artifact.uri} cannot be shown to its reader below {self.root}: {error}. Let this user "
                "write there, or set LLM_ASSETS_CACHE to a folder on a disk of the node's own."
            ) from error


def _refuse_missing(artifact: Artifact, place: Path) -> None:
    for file in artifact.files:
        if not os.path.lexists(place / file.path):
            raise ArtifactError(f"{artifact.uri}: {file.path} is missing. Delete {place} and run again.")


def _refuse_links(artifact: Artifact, linked: LinkedFolder) -> None:
    for path, there in entries_of(linked.folder).items():
        ours = stat.S_ISLNK(there.st_mode) and (linked.folder / path).readlink() == linked.contents[path]
        if not (ours or stat.S_ISREG(there.st_mode)):
            place = linked.contents[path]
            raise ArtifactError(
                f"{artifact.uri}: {path} is no file but a link, which may lead to other bytes tomorrow, or a "
                f"device ({place}). Delete {place.parent} and run again."
            )
