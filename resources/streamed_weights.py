"""Whether a model that is streamed past this node's disk is the one that was promoted.

The streamer checks nothing, so this does. Before a server starts, the manifest in the bucket must have the
promoted digest, the files beside it must be exactly the manifest's, and every byte is read once and
hashed, in bounded memory and without touching the disk. What was read is remembered by the store's
ETags (a *seal*), so the next start on this node compares ETags instead of reading everything again.
Once the server is up, the ETags must still be those: what it loaded in between is what was read.

Rests on the store: an object whose ETag is the same has the same bytes. Not covered: an object that is
replaced and put back while a server loads.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.artifacts import MANIFEST_NAME, SIGNATURE_NAME, ArtifactFile, digest_of
from resources.vllm import VllmError
from resources.vllm_streaming import DISK

if TYPE_CHECKING:
    from obstore.store import ObjectStore

READERS = 8
CHUNK_BYTES = 8 * 2**20
EMULATOR = "STORAGE_EMULATOR_HOST"  # the variable of Google's own libraries
ENDPOINT = "AWS_ENDPOINT_URL"


@dataclass(frozen=True, kw_only=True)
class StreamedModel:
    """A model below an address (`gs://bucket/…/<version>`), and the digest that it has to have.

    `seal` is the file in which the ETags of what was verified are remembered.
    """

    uri: str
    digest: str
    seal: Path

    def verify(self) -> None:
        """Raises:
        VllmError: It is not what was promoted (names the file), or the bucket does not answer.
        """
        with self._reaching() as store:
            etags = self._etags(store)
            if self._sealed() == etags:
                return
            files = self._manifest(store, etags)
            with ThreadPoolExecutor(READERS) as readers:
                reads = [readers.submit(self._check, store, file, etags[file.path]) for file in files]
                for read in reads:
                    read.result()
        self.seal.parent.mkdir(parents=True, exist_ok=True)
        draft = self.seal.with_name(f".{self.seal.name}.{os.getpid()}")
        draft.write_text(json.dumps({"digest": self.digest, "etags": etags}, indent=1))
        draft.replace(self.seal)

    def require_unchanged(self) -> None:
        """Raises:
        VllmError: An object is another one than was verified.
        """
        with self._reaching() as store:
            etags, sealed = self._etags(store), self._sealed() or {}
        changed = sorted(path for path in {*etags, *sealed} if etags.get(path) != sealed.get(path))
        if changed:
            raise self._refused(f"{changed[0]} was changed while the server loaded it")

    def _sealed(self) -> dict[str, str] | None:
        try:
            seal = json.loads(self.seal.read_text())
        except FileNotFoundError:
            return None
        return seal["etags"] if seal["digest"] == self.digest else None

    def _etags(self, store: "ObjectStore") -> dict[str, str]:
        every = {meta["path"]: meta["e_tag"] or "" for page in store.list() for meta in page}
        return {path: etag for path, etag in every.items() if path != SIGNATURE_NAME}

    def _manifest(self, store: "ObjectStore", etags: Mapping[str, str]) -> tuple[ArtifactFile, ...]:
        """The files that the promoted digest stands for, all of them there and no other."""
        if MANIFEST_NAME not in etags:
            raise self._refused("it has no manifest; publish it again")
        try:
            content = json.loads(bytes(store.get(MANIFEST_NAME).bytes()))
            files = tuple(ArtifactFile(**file) for file in content["files"])
        except (ValueError, KeyError, TypeError) as fault:
            raise self._refused(f"its {MANIFEST_NAME} is no manifest ({fault!r})") from fault
        if (digest := f"sha256:{digest_of(files)}") != self.digest:
            raise self._refused(f"its manifest is of {digest}, promoted was {self.digest}")
        expected = {file.path for file in files} | {MANIFEST_NAME}
        if wrong := sorted(expected ^ (set(etags) - {SIGNATURE_NAME})):
            raise self._refused(
                f"{wrong[0]} is {'missing' if wrong[0] in expected else 'not of the version'}"
            )
        return files

    def _check(self, store: "ObjectStore", file: ArtifactFile, etag: str) -> None:
        sha256, size_bytes = hashlib.sha256(), 0
        for chunk in store.get(file.path, options={"if_match": etag}).stream(min_chunk_size=CHUNK_BYTES):
            sha256.update(chunk)
            size_bytes += len(chunk)
        if (size_bytes, sha256.hexdigest()) != (file.size_bytes, file.sha256):
            raise self._refused(f"the bytes of {file.path} are not those that were published")

    @contextmanager
    def _reaching(self) -> Iterator["ObjectStore"]:
        from obstore.exceptions import BaseError

        try:
            yield _store(self.uri)
        except BaseError as fault:
            reason = str(fault).strip().splitlines()[0]
            raise VllmError(
                f"{self.uri} cannot be read: {reason} Give this machine access to the bucket (workload "
                f"identity, or the provider's own environment variables), or set {DISK}."
            ) from fault

    def _refused(self, problem: str) -> VllmError:
        return VllmError(f"{self.uri} is not served: {problem}.")


def _store(uri: str) -> "ObjectStore":
    """A client of the bucket with the credentials of this process's environment."""
    from obstore.store import from_url

    options: dict[str, Any] = {"client_options": {"allow_http": True}}
    if uri.startswith("s3://") and os.environ.get(ENDPOINT, "").startswith("http://"):
        return from_url(uri, **options)
    if uri.startswith("gs://") and (emulator := os.environ.get(EMULATOR)):
        account = {"gcs_base_url": emulator, "disable_oauth": True, "private_key": "", "client_email": ""}
        return from_url(uri, service_account_key=json.dumps({**account, "private_key_id": ""}), **options)
    return from_url(uri)
