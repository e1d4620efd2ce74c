"""Where things lie in the cache's folder, which is one file system.

files/<a>/<sha256>            one copy of each content, read-only
coming/<sha256>.<size>.part   a content on its way, locked by who brings it; <size> is what it will have
artifacts/<digest>/           an artifact: hard links to its contents, under its own paths
manifests/<digest>            which files it has; its bytes are set aside as long as this stands
leases/<digest>               a shared lock on it keeps the artifact; its mtime is the last use
locks/                        who is at work on what
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from resources.artifact_store.artifacts import ArtifactError, ArtifactFile
from resources.node_cache.folders import LinkedFolder

SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Places:
    """The paths below one cache's folder. Digests are given in hex, without `sha256:`."""

    root: Path

    def make(self) -> None:
        """Raises:
        ArtifactError: The folder cannot be made.
        """
        try:
            for name in ("files", "coming", "artifacts", "manifests", "leases", "locks"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
                if not os.access(self.root / name, os.W_OK):
                    raise PermissionError(f"{self.root / name} belongs to another user")
        except (PermissionError, FileExistsError, NotADirectoryError) as error:
            raise ArtifactError(
                f"The node's cache cannot be kept at {self.root}: {error}. "
                "Set LLM_ASSETS_CACHE to a folder that this user may write to."
            ) from error

    def content(self, file: ArtifactFile) -> Path:
        return self.root / f"files/{checked(file.sha256)[0]}/{file.sha256}"

    def part(self, file: ArtifactFile) -> Path:
        return self.root / f"coming/{checked(file.sha256)}.{file.size_bytes}.part"

    def folder(self, digest: str) -> Path:
        return self.root / "artifacts" / checked(digest)

    def linked(self, digest: str, files: Iterable[ArtifactFile] = (), *, what: str = "") -> LinkedFolder:
        """The folder of an artifact of these files, with what it takes to make it."""
        beside = self.root / "artifacts"
        return LinkedFolder(
            folder=self.folder(digest),
            making=beside / f".{digest}",
            link=beside / f".{digest}.link",
            lock=self.root / "locks" / f"folder-{digest}",
            contents={file.path: self.content(file) for file in files},
            what=what,
        )

    def manifest(self, digest: str) -> Path:
        return self.root / "manifests" / checked(digest)

    def manifest_draft(self) -> Path:
        """One, because manifests are written under the lock of the space."""
        return self.root / "manifests" / ".draft"

    def lease(self, digest: str) -> Path:
        return self.root / "leases" / checked(digest)

    def space_lock(self) -> Path:
        """Held by who sets bytes aside or frees them."""
        return self.root / "locks" / "space"

    def locks(self) -> Path:
        return self.root / "locks"

    def contents(self) -> Iterator[os.DirEntry[str]]:
        for shelf in _entries(self.root / "files"):
            yield from _entries(shelf)

    def parts(self) -> Iterator[os.DirEntry[str]]:
        return _entries(self.root / "coming")

    def digests(self) -> set[str]:
        """Every artifact of which something is there, be it a leftover."""
        folders = [self.root / name for name in ("artifacts", "manifests", "leases")]
        names = (entry.name for folder in folders for entry in _entries(folder))
        return {found[0] for name in names if (found := SHA256.search(name))}


def _entries(folder: Path | os.DirEntry[str]) -> Iterator[os.DirEntry[str]]:
    """Entries and not paths, which take ten times as long for thousands of files."""
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except FileNotFoundError:  # nothing was ever cached
        return


def checked(sha256: str) -> str:
    """A hash that comes from a manifest becomes part of a path: it may be nothing but a hash."""
    if not SHA256.fullmatch(sha256):
        raise ArtifactError(f"{sha256!r} is not a SHA-256 in hex; the manifest that says so is damaged.")
    return sha256
