"""Whether a model that is streamed past this node's disk is the one that was promoted.

The streamer checks nothing, so this does. Before a server starts, the manifest in the bucket must have the
promoted digest, the files beside it must be exactly the manifest's, and every byte is read once and
hashed, in bounded memory and without touching the disk. What was read is remembered by the checksums that
the store keeps of its objects (a *seal*), so the next start on this node compares those instead of reading
everything again. Once the server is up, they must still be the same: what it loaded in between is what was
read.

Rests on the store's checksums. Not covered: an object that is replaced and put back while a server loads.
"""

import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from resources.artifact_store.artifacts import (
    MANIFEST_NAME,
    SIGNATURE_NAME,
    ArtifactError,
    ArtifactFile,
    digest_of,
)
from resources.durable_files import replace_json
from resources.object_stores.objects import ObjectStore, ObjectStoreError
from resources.object_stores.opening import open_object_store
from resources.object_stores.retries import Retries
from resources.seams.serving import ServingError
from resources.vllm.streaming import DISK

READERS = 8
NOWHERE = Path(os.devnull)


@dataclass(frozen=True, kw_only=True)
class StreamedModel:
    """A model below an address (`gs://bucket/…/<version>`), and the digest that it has to have.

    `seal` is the file in which the checksums of what was verified are remembered.
    """

    uri: str
    digest: str
    seal: Path
    retries: Retries = field(default_factory=Retries)

    def verify(self) -> None:
        """Raises:
        ServingError: It is not what was promoted (names the file), or the bucket does not answer.
        """
        with self._reaching() as store:
            checksums = _checksums(store)
            if self._sealed() == checksums:
                return
            files = self._manifest(store, checksums)
            with ThreadPoolExecutor(READERS) as readers:
                reads = [readers.submit(self._check, store, file) for file in files]
                for read in reads:
                    read.result()
            if _checksums(store) != checksums:
                raise self._refused("it was changed while it was read; try again")
        replace_json(self.seal, {"digest": self.digest, "checksums": checksums})

    def require_unchanged(self) -> None:
        """Raises:
        ServingError: An object is another one than was verified.
        """
        with self._reaching() as store:
            now, sealed = _checksums(store), self._sealed() or {}
        changed = sorted(path for path in {*now, *sealed} if now.get(path) != sealed.get(path))
        if changed:
            raise self._refused(f"{changed[0]} was changed while the server loaded it")

    def _sealed(self) -> dict[str, str] | None:
        try:
            seal = json.loads(self.seal.read_text())
        except FileNotFoundError:
            return None
        return seal["checksums"] if seal["digest"] == self.digest else None

    def _manifest(self, store: ObjectStore, there: Mapping[str, str]) -> tuple[ArtifactFile, ...]:
        """The files that the promoted digest stands for, all of them there and no other."""
        if MANIFEST_NAME not in there:
            raise self._refused("it has no manifest; publish it again")
        try:
            content = json.loads(store.read(MANIFEST_NAME))
            files = tuple(ArtifactFile(**file) for file in content["files"])
        except (ValueError, KeyError, TypeError, ArtifactError) as fault:
            raise self._refused(f"its {MANIFEST_NAME} is no manifest ({fault!r})") from fault
        if (digest := f"sha256:{digest_of(files)}") != self.digest:
            raise self._refused(f"its manifest is of {digest}, promoted was {self.digest}")
        expected = {file.path for file in files} | {MANIFEST_NAME}
        if wrong := sorted(expected ^ (set(there) - {SIGNATURE_NAME})):
            raise self._refused(
                f"{wrong[0]} is {'missing' if wrong[0] in expected else 'not of the version'}"
            )
        return files

    def _check(self, store: ObjectStore, file: ArtifactFile) -> None:
        read = store.download(file.path, NOWHERE, lambda _: None)
        if (read.size_bytes, read.sha256) != (file.size_bytes, file.sha256):
            raise self._refused(f"the bytes of {file.path} are not those that were published")

    @contextmanager
    def _reaching(self) -> Iterator[ObjectStore]:
        try:
            yield open_object_store(self.uri, retries=self.retries)
        except ObjectStoreError as fault:
            raise ServingError(
                f"{self.uri} cannot be read: {fault} Give this machine access to the bucket (workload "
                f"identity, or the provider's own environment variables), or set {DISK}."
            ) from fault

    def _refused(self, problem: str) -> ServingError:
        return ServingError(f"{self.uri} is not served: {problem}.")


def _checksums(store: ObjectStore) -> dict[str, str]:
    """Of every object below the address: its size and what the store says of its bytes."""
    return {
        stored.key: f"{stored.size_bytes} {json.dumps(dict(stored.checksums), sort_keys=True)}"
        for stored in store.list("")
    }
