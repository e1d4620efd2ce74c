"""The artifact store: `<url>/<collection>/<tenant>/<name>/<version>/`, on a disk, in a bucket or Artifactory.

A version is seen once its manifest is there, and the manifest is written last: it is whole or it is not
there. What it holds never changes. Readers verify every byte and see the files that were published and no
other: on a disk in a view of the version, on other stores in the node's cache.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import dagster as dg

from resources.artifact_store.artifacts import (
    MANIFEST_NAME,
    SHARED,
    SIGNATURE_NAME,
    Artifact,
    ArtifactError,
    ArtifactFile,
    Collection,
    Line,
    entries_of,
    manifest_text,
    new_version,
    paths_of,
    refuse_foreign,
    verify,
    version_ending,
)
from resources.artifact_store.manifests import published, read_manifest
from resources.artifact_store.publication import (
    Holdings,
    Publication,
    abandoned,
    files_of,
    folders_without_manifest,
    left_behind,
    refuse_unlike,
)
from resources.artifact_store.transfer_progress import Log, TransferProgress, silent
from resources.names import VERSION
from resources.node_cache import Held, NodeCache, Views
from resources.object_stores.disk import DiskStore
from resources.object_stores.objects import UNFINISHED, ObjectMissing, ObjectStore
from resources.object_stores.opening import open_object_store
from resources.signing.signatures import Signer

VIEWS = f"{UNFINISHED}views"  # in a store on a disk; no listing shows it
# The attribute that says which engine made it: the same bytes by another engine are a version of their own.
MAKER = "engine_lock"
COMPARED_VERSIONS = 3  # of a line: newest ones whose files a new version may share


class ArtifactStore(dg.ConfigurableResource[Any]):
    """Publishes folders as immutable versions and finds them again.

    Attributes:
        url: `file:/…` (a disk, NFS, a shared volume), `gs://…`, `s3://…` or `artifactory+https://…`.
        cache: The folder of the node's cache; a store on a disk needs none.
        cache_limit_bytes: How much the cache may hold.
        signing_keys: The folder of the key that signs what is published; None: nothing is signed.
        signer: Which signer, as `resources/signing/signers.py` says.
    """

    url: str
    cache: str | None = None
    cache_limit_bytes: int = 0
    signing_keys: str | None = None
    signer: str = "key"

    @property
    def objects(self) -> ObjectStore:
        return _opened(self.url)

    def publish(
        self,
        line: Line,
        folder: Path,
        attributes: Mapping[str, Any],
        *,
        parents: Iterable[Artifact] = (),
        log: Log = silent,
    ) -> Artifact:
        """Moves `folder` into the store as a new version of `line`.

        Returns the version that is already there when one has the same bytes and fingerprint.

        Args:
            parents: Artifacts that may hold some of the same files, which are then not sent again.

        Raises:
            ArtifactError: The folder is empty.
            ObjectStoreError: The store cannot take it; names what to do.
        """
        draft = self.send(line, folder, attributes.get("fingerprint"), parents=parents, log=log)
        artifact = self.finish(draft, attributes)
        shutil.rmtree(folder)
        return artifact

    def send(
        self,
        line: Line,
        folder: Path,
        fingerprint: str | None,
        *,
        parents: Iterable[Artifact] = (),
        log: Log = silent,
    ) -> Artifact:
        """Brings the files of `folder` into the store; `finish` the draft, and they are a version."""
        paths = paths_of(folder)
        if not paths:
            raise ArtifactError(f"There is nothing to publish as {line}: {folder} holds no file.")
        total_bytes = sum((folder / path).stat().st_size for path in paths)
        with self.publication(
            line, fingerprint, parents=parents, total_bytes=total_bytes, log=log
        ) as publication:
            for path in paths:
                publication.add(path, folder / path)
            return publication.draft()

    @contextmanager
    def publication(
        self,
        line: Line,
        fingerprint: str | None,
        *,
        parents: Iterable[Artifact] = (),
        total_bytes: int | None = None,
        log: Log = silent,
    ) -> Iterator[Publication]:
        """Sends the files of a version one by one, as they become ready; `finish` its draft."""
        unfinished = list(self._left_by(line, fingerprint))
        draft = Artifact(line=line, version=new_version(fingerprint), files=())
        progress = TransferProgress(f"Publishing {line}", total_bytes, log)
        newest = islice(self.versions(line), COMPARED_VERSIONS)
        holdings = Holdings(
            whole=files_of([*parents, *newest]), leftovers=left_behind(self.objects, unfinished)
        )
        publication = Publication(self.objects, draft, holdings, progress)
        try:
            yield publication
        finally:
            publication.abandon()
        self.clear_abandoned(unfinished)

    def finish(self, draft: Artifact, attributes: Mapping[str, Any]) -> Artifact:
        """Makes a version visible whose files lie in the store, sent by whoever made them.

        Withdraws it for the one that is there with the same bytes, fingerprint and engine, and gives that.

        Raises:
            ArtifactError: A file is gone or cut.
        """
        artifact = replace(draft, attributes=dict(attributes))
        for twin in self._made_from(draft.line, artifact.fingerprint):
            if twin.files == artifact.files and twin.attributes.get(MAKER) == attributes.get(MAKER):
                self._empty(f"{draft.key}/")
                return twin
        refuse_unlike(self.objects, draft)
        if (signature := self._sign(artifact)) is not None:
            self.objects.create(f"{artifact.key}/{SIGNATURE_NAME}", signature)
        if not self.objects.create(f"{artifact.key}/{MANIFEST_NAME}", manifest_text(artifact).encode()):
            raise ArtifactError(
                f"{artifact.uri} is published already. Run again; it gets a label of its own."
            )
        return artifact

    def versions(self, line: Line) -> Iterator[Artifact]:
        """The whole versions of `line`, the newest first."""
        for version in self._labels(line):
            if (artifact := read_manifest(self.objects, line, version)) is not None:
                yield artifact

    def get(self, uri: str) -> Artifact:
        """The artifact at an `artifact://…` address.

        Raises:
            ArtifactError: The address is not one, or nothing was published there.
        """
        return published(self.objects, uri)

    def find(self, line: Line, fingerprint: str) -> Artifact | None:
        """The newest version that was made from exactly these ingredients."""
        return next(self._made_from(line, fingerprint), None)

    def read(self, artifact: Artifact, path: str) -> bytes:
        """One small file of an artifact, verified.

        Raises:
            ArtifactError: It has no such file, or its bytes are not those that were published.
        """
        file = artifact.file(path)
        content = self.objects.read(f"{artifact.key}/{path}")
        if len(content) != file.size_bytes or hashlib.sha256(content).hexdigest() != file.sha256:
            raise ArtifactError(f"{artifact.uri}: the bytes of {path} are not those that were published.")
        return content

    def signature(self, artifact: Artifact) -> bytes | None:
        """The signature that was published with it, if any."""
        try:
            return self.objects.read(f"{artifact.key}/{SIGNATURE_NAME}")
        except ObjectMissing:
            return None

    def attach_signature(self, artifact: Artifact, signature: bytes) -> None:
        """Signs what was published without a signature, or puts another one in its place."""
        key = f"{artifact.key}/{SIGNATURE_NAME}"
        self.objects.delete(key)
        if not self.objects.create(key, signature):
            raise ArtifactError(f"{artifact.uri} is being signed by somebody else right now. Try again.")

    def verify(self, artifact: Artifact) -> Artifact:
        """Reads every byte, and looks for what was never published; see `hold`."""
        self.refuse_foreign(artifact)
        with self.hold(artifact):
            return artifact

    @contextmanager
    def hold(
        self, artifact: Artifact, log: Log = silent, *, compared_by_reader: bool = False
    ) -> Iterator[Held]:
        """A folder on this machine's disk with the artifact's files and no other, verified just now.

        It stays there while the block runs, and after it for whoever keeps `Held.lease` locked.

        Args:
            compared_by_reader: Whoever reads the files in the block compares them with the manifest in the
                same read, so they are not read before.

        Raises:
            ArtifactError: Names the first file that is missing, damaged, or beside those that were published.
            ObjectStoreError: The store cannot give it.
        """
        if self.cache is None:
            objects = self._disk()
            self.refuse_foreign(artifact)
            place = objects.path(artifact.key)
            with views_of(objects).hold(artifact, place, log) as held:
                if not compared_by_reader:
                    verify(artifact, held.folder, place=place)
                yield held
            return
        cache = NodeCache(root=Path(self.cache), limit_bytes=self.cache_limit_bytes)
        progress = TransferProgress(f"Fetching {artifact.uri}", artifact.size_bytes, log)
        if not cache.whole(artifact.digest):
            self.refuse_foreign(artifact)

        def download(file: ArtifactFile, target: Path) -> str:
            return self.objects.download(f"{artifact.key}/{file.path}", target, progress.moved).sha256

        with cache.hold(artifact, download, log) as held:
            yield held

    def refuse_foreign(self, artifact: Artifact) -> None:
        """Looks into the artifact's folder in the store.

        Raises:
            ArtifactError: Something lies there that was never published: names it.
        """
        objects = self.objects
        if isinstance(objects, DiskStore):
            folder = objects.path(artifact.key)
            there: Iterable[str] = entries_of(folder) if folder.is_dir() else ()
        else:
            start = f"{artifact.key}/"
            there = (stored.key.removeprefix(start) for stored in objects.list(start))
        refuse_foreign(artifact, there, place=f"{objects.url}/{artifact.key}")

    def object_url(self, artifact: Artifact) -> str:
        """Where an engine can read the artifact from the store itself.

        Raises:
            ArtifactError: The store is a disk.
        """
        if isinstance(self.objects, DiskStore):
            raise ArtifactError(
                f"{artifact.uri} lies on a disk ({self.url}), which cannot be streamed from: "
                "set serving.weights: disk in the model's file."
            )
        return f"{self.objects.url}/{artifact.key}"

    def delete(self, artifact: Artifact) -> None:
        """Takes a version away, the manifest first. What is gone already is fine."""
        self.objects.delete(f"{artifact.key}/{MANIFEST_NAME}")
        if isinstance(self.objects, DiskStore):
            views_of(self.objects).drop(artifact)
        self._empty(f"{artifact.key}/")

    def _empty(self, folder: str) -> None:
        for stored in list(self.objects.list(folder)):
            self.objects.delete(stored.key)

    def lines(self) -> Iterator[Line]:
        """Every line that anything was ever published to."""
        for collection in get_args(Collection):
            for first in self.objects.folders(f"{collection}/"):
                if collection in SHARED:
                    yield Line(collection=collection, tenant=None, name=first)
                    continue
                for name in self.objects.folders(f"{collection}/{first}/"):
                    yield Line(collection=collection, tenant=first, name=name)

    def unfinished(self, line: Line) -> list[str]:
        """Folders (`<line>/<version>/`) of publications that were killed or are still at work."""
        return list(folders_without_manifest(self.objects, str(line), self._labels(line)))

    def _sign(self, artifact: Artifact) -> bytes | None:
        if self.signing_keys is None:
            return None
        return Signer(keys=Path(self.signing_keys), setting=self.signer).sign(artifact)

    def clear_abandoned(self, unfinished: Iterable[str]) -> list[str]:
        """Deletes those of these folders that nobody can be at work on any more; gives them."""
        cleared = [folder for folder in unfinished if abandoned(folder)]
        for folder in cleared:
            self._empty(folder)
        return cleared

    def _disk(self) -> DiskStore:
        if not isinstance(self.objects, DiskStore):
            raise ArtifactError(
                f"The artifact store {self.url} needs a cache on this node: set LLM_ASSETS_CACHE."
            )
        return self.objects

    def _labels(self, line: Line, ending: str = "") -> list[str]:
        """The newest first; of unfinished versions too, because only the manifest tells."""
        labels = reversed(self.objects.folders(f"{line}/"))
        return [label for label in labels if VERSION.fullmatch(label) and label.endswith(ending)]

    def _made_from(self, line: Line, fingerprint: str | None) -> Iterator[Artifact]:
        for label in self._labels(line, ending=version_ending(fingerprint)) if fingerprint else ():
            artifact = read_manifest(self.objects, line, label)
            if artifact is not None and artifact.fingerprint == fingerprint:
                yield artifact

    def _left_by(self, line: Line, fingerprint: str | None) -> Iterator[str]:
        labels = self._labels(line, ending=version_ending(fingerprint)) if fingerprint else []
        return folders_without_manifest(self.objects, str(line), labels)


@lru_cache(maxsize=8)
def _opened(url: str) -> ObjectStore:
    return open_object_store(url)


def views_of(objects: DiskStore) -> Views:
    """Each user has views of his own: a store may be shared by several."""
    return Views(root=objects.root / VIEWS / str(os.getuid()))
