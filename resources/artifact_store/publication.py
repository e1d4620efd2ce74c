"""A version on its way into the store: its files as they become ready, in parallel.

Until the manifest is there (`ArtifactStore.finish`) nobody sees the version. What a killed publication
brought is not sent again: the next one of the same fingerprint takes it over inside the store. Files that
earlier versions of the line, or the parents, hold already are linked or copied there too.

Two publications of one line at once do no harm to each other. What a killed one left is deleted once it
is older than `LEFT_ALONE`, because a publication on another machine may still be at work on it.
"""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from resources.artifact_store.artifacts import (
    LABEL_TIME,
    MANIFEST_NAME,
    Artifact,
    ArtifactError,
    ArtifactFile,
)
from resources.artifact_store.transfer_progress import TransferProgress
from resources.hashes import sha256_of
from resources.object_stores.disk import DiskStore
from resources.object_stores.objects import ObjectMissing, ObjectStore, StoredObject, Transferred

TRANSFERS = 8
LEFT_ALONE = timedelta(hours=48)


@dataclass(frozen=True, kw_only=True)
class Holdings:
    """What the store holds already and a publication may take over.

    Attributes:
        whole: Keys of files of whole versions, by sha256 and size in bytes.
        leftovers: Objects that killed publications of the same work left, by path and size in bytes.
    """

    whole: Mapping[tuple[str, int], str] = field(default_factory=dict)
    leftovers: Mapping[tuple[str, int], tuple[StoredObject, ...]] = field(default_factory=dict)

    def may_have(self, size_bytes: int) -> bool:
        return any(size_bytes == known for _, known in self.whole)


def files_of(artifacts: Iterable[Artifact]) -> dict[tuple[str, int], str]:
    """The keys of every file of these artifacts, by sha256 and size in bytes."""
    return {
        (file.sha256, file.size_bytes): f"{artifact.key}/{file.path}"
        for artifact in artifacts
        for file in artifact.files
    }


def left_behind(
    objects: ObjectStore, folders: Iterable[str]
) -> dict[tuple[str, int], tuple[StoredObject, ...]]:
    """What lies in these unfinished folders (`<line>/<version>/`), by path and size in bytes."""
    found: dict[tuple[str, int], tuple[StoredObject, ...]] = {}
    for folder in folders:
        for stored in objects.list(folder):
            known = (stored.key.removeprefix(folder), stored.size_bytes)
            found[known] = (*found.get(known, ()), stored)
    return found


def abandoned(folder: str) -> bool:
    """Is an unfinished folder (`<line>/<version>/`) so old that nobody can still be at work on it?"""
    version = folder.rstrip("/").rpartition("/")[2]
    try:
        started = datetime.strptime(version.partition("Z-")[0], LABEL_TIME).replace(tzinfo=UTC)
    except ValueError:
        return False  # somebody's own folder, no publication's
    return datetime.now(UTC) - started > LEFT_ALONE


class Publication:
    """The files of one version that are being sent. `add` them, then ask for the `draft`; or `abandon`."""

    def __init__(
        self,
        objects: ObjectStore,
        draft: Artifact,
        holdings: Holdings,
        progress: TransferProgress,
    ) -> None:
        self._objects, self._draft, self._holdings, self._progress = objects, draft, holdings, progress
        self._threads = ThreadPoolExecutor(TRANSFERS, thread_name_prefix="publish")
        self._files: dict[str, Future[ArtifactFile]] = {}
        self._sources: dict[str, Path] = {}

    def add(self, path: str, source: Path, *, sha256: str | None = None) -> None:
        """Begins to bring a file in and returns at once. `source` must not change any more.

        Args:
            path: Its POSIX path in the artifact. Added before: nothing happens.
            sha256: What whoever wrote it found while writing; saves reading it again.
        """
        if path not in self._files:
            self._sources[path] = source
            self._files[path] = self._threads.submit(self._bring, path, source, sha256)

    def files(self) -> tuple[ArtifactFile, ...]:
        """Waits for every file that was added. Raises what the first one failed with."""
        return tuple(sorted((each.result() for each in self._files.values()), key=lambda file: file.path))

    def draft(self) -> Artifact:
        """Waits for every file that was added: they lie in the store, and nobody sees a version yet.

        Raises:
            ArtifactError: No file was added, or one is not in the store as it was brought there.
        """
        files = self.files()
        if not files:
            raise ArtifactError(f"There is nothing to publish as {self._draft.line}.")
        artifact = replace(self._draft, files=files)
        self._make_whole(artifact)
        return artifact

    @property
    def sent_bytes(self) -> int:
        """How much was read and sent so far; what the store held already is not in it."""
        return self._progress.done_bytes

    def abandon(self) -> None:
        """Begins nothing more and waits for what is under way; what was brought stays for the next try."""
        self._threads.shutdown(cancel_futures=True)

    def _bring(self, path: str, source: Path, sha256: str | None) -> ArtifactFile:
        key, size_bytes = f"{self._draft.key}/{path}", source.stat().st_size
        found = self._taken_over(path, source, key, sha256) or self._sent(source, key, sha256)
        if (found.size_bytes, found.sha256) != (size_bytes, sha256 or found.sha256):
            raise ArtifactError(f"{path} changed while it was published as {key}. Run again.")
        return ArtifactFile(path=path, size_bytes=found.size_bytes, sha256=found.sha256)

    def _sent(self, source: Path, key: str, sha256: str | None) -> Transferred:
        objects = self._objects
        if sha256 and isinstance(objects, DiskStore) and objects.adopt(source, key):
            return Transferred(size_bytes=source.stat().st_size, sha256=sha256)
        return objects.upload(source, key, self._progress.moved)

    def _taken_over(self, path: str, source: Path, key: str, sha256: str | None) -> Transferred | None:
        size_bytes = source.stat().st_size
        if sha256 is None and self._holdings.may_have(size_bytes):
            sha256 = sha256_of(source)
        if sha256 and (known := self._holdings.whole.get((sha256, size_bytes))):
            with suppress(ObjectMissing):  # somebody deleted it out of its version
                self._objects.copy(known, key)
                return Transferred(size_bytes=size_bytes, sha256=sha256)
        for stored in self._holdings.leftovers.get((path, size_bytes), ()):
            if same := self._objects.matches(stored, source):
                self._objects.copy(stored.key, key)
                return same
        return None

    def _make_whole(self, artifact: Artifact) -> None:
        """A file that was cut in an earlier version is no better in a copy of it, and is sent after all."""
        unlike = files_unlike(self._objects, artifact)
        for path in [file.path for file, found in unlike if found is not None]:
            self._objects.upload(self._sources[path], f"{artifact.key}/{path}", self._progress.moved)
        if unlike:
            refuse_unlike(self._objects, artifact)


def refuse_unlike(objects: ObjectStore, draft: Artifact) -> None:
    """Raises:
    ArtifactError: A file of the draft does not lie in the store as it was brought there; names it.
    """
    for file, found in files_unlike(objects, draft):
        what = "is gone" if found is None else f"has {found} bytes instead of {file.size_bytes}"
        raise ArtifactError(f"{draft.uri} was not published: {file.path} {what} in {objects.url}. Run again.")


def files_unlike(objects: ObjectStore, draft: Artifact) -> list[tuple[ArtifactFile, int | None]]:
    """The files that lie there in another size, with that size, or None where they do not lie there."""
    stored = {each.key: each.size_bytes for each in objects.list(f"{draft.key}/")}
    found = [(file, stored.get(f"{draft.key}/{file.path}")) for file in draft.files]
    return [(file, size) for file, size in found if size != file.size_bytes]


def folders_without_manifest(objects: ObjectStore, line: str, versions: Iterable[str]) -> Iterator[str]:
    """Those of a line's version folders that were begun and not finished."""
    for version in versions:
        folder = f"{line}/{version}/"
        if not any(stored.key == f"{folder}{MANIFEST_NAME}" for stored in objects.list(folder)):
            yield folder
