"""Objects in a bucket of Google Cloud Storage.

google-cloud-storage knows the credentials (Application Default, a service account, Workload Identity), lists,
copies, deletes, opens resumable uploads, and honours STORAGE_EMULATOR_HOST. The bytes go through
`http_requests.py`: its own transfers hold whole chunks in memory and cannot be told how slow is too slow
(docs/decisions). Memory: 256 KiB for an upload; for a download see `chunks.py`. Not covered: one file
uploaded in parallel parts; composed objects have no MD5, by which `matches` knows a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from resources.object_stores import chunks
from resources.object_stores.checksums import matching
from resources.object_stores.closing import closed_with
from resources.object_stores.gcs_requests import asked, http_requests, new_client
from resources.object_stores.gcs_uploads import SMALL_BYTES, Crc32c, GcsUpload, hex_of
from resources.object_stores.objects import (
    Moved,
    Names,
    ObjectStoreError,
    StoredObject,
    Transferred,
    checked_key,
    checked_prefix,
    missing,
    unfinished,
)
from resources.object_stores.retries import Retries, retried
from resources.object_stores.sending import Sending

if TYPE_CHECKING:
    from google.cloud.storage import Blob, Client

T = TypeVar("T")
SCHEME = "gs://"


class GcsStore:
    """The objects below a prefix of one bucket."""

    def __init__(self, url: str, *, client: Client | None = None, retries: Retries | None = None) -> None:
        """`url` as in `gs://bucket/folder`; `client` such as dagster-gcp's `GCSResource.get_client()`."""
        self.url = SCHEME + url.removeprefix(SCHEME).strip("/")
        bucket, _, folder = self.url.removeprefix(SCHEME).partition("/")
        if not bucket:
            raise ObjectStoreError(f"{url!r} names no bucket: gs://<bucket>/<folder> does.")
        self._folder = f"{folder}/" if folder else ""
        self._retries = retries or Retries()
        self._client = client or new_client(self.url)
        self._bucket = self._client.bucket(bucket)
        self._http = http_requests(self._client, self.url, self._retries)
        self._workers = chunks.Workers()
        own = [] if client else [self._client.close]
        closed_with(self, self._http.close, self._workers.close, *own)
        self._timeout = (self._retries.connect_s, self._retries.silence_s)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        whole = self._folder + checked_prefix(self.url, prefix)
        options: dict[str, Any] = {"prefix": whole, "fields": "items(name,size,md5Hash,crc32c),nextPageToken"}
        blobs = self._bucket_asked("list", prefix, lambda: list(self._blobs(**options)))
        for blob in blobs:
            stored = _stored(blob, blob.name.removeprefix(self._folder))
            if not unfinished(stored.key):
                yield stored

    def folders(self, prefix: str) -> Names:
        whole = self._folder + checked_prefix(self.url, prefix)
        found = self._bucket_asked("list", prefix, lambda: self._folders(whole))
        return sorted(name for name in found if not unfinished(name))

    def read(self, key: str) -> bytes:
        return chunks.read(self._reading(key))

    def create(self, key: str, content: bytes) -> bool:
        from google.api_core.exceptions import PreconditionFailed

        blob, tries = self._blob(key), [0]

        def write() -> None:
            tries[0] += 1
            blob.upload_from_string(content, if_generation_match=0, retry=None, timeout=self._timeout)

        try:
            self._bucket_asked("create", key, write)
        except PreconditionFailed:  # another writer was first, or we were and only the answer was lost
            return tries[0] > 1 and self.read(key) == content
        return True

    def upload(self, source: Path, key: str, moved: Moved) -> Transferred:
        crc32c, blob, doing = Crc32c(), self._blob(key), self._doing("write", key)
        sending = Sending(source, moved, self._retries, crc32c)
        on_its_way = GcsUpload(
            http=self._http,
            sending=sending,
            crc32c=crc32c,
            new_session=lambda: self._session(blob, sending.size_bytes, key),
            doing=doing,
        )
        if sending.size_bytes > SMALL_BYTES:
            return retried(on_its_way.resumable, retries=self._retries, doing=doing)
        address = f"{self._client.api_endpoint}/upload/storage/v1/b/{self._bucket.name}/o"
        return retried(partial(on_its_way.small, address, blob.name), retries=self._retries, doing=doing)

    def download(self, key: str, target: Path, moved: Moved) -> Transferred:
        return chunks.download(self._reading(key), target, moved, self._workers)

    def _reading(self, key: str) -> chunks.Reading:
        doing, address = self._doing("read", key), self._media(key)

        def stream(start: int, size: int, take: chunks.Take) -> int:
            object_bytes = self._http.stream(address, start, size, doing, take)
            if object_bytes is None:
                raise missing(self.url, key)
            return object_bytes

        return chunks.Reading(stream=stream, retries=self._retries, doing=doing)

    def copy(self, source: str, key: str) -> None:
        """By rewriting, in as many calls as Google asks for."""
        from google.api_core.exceptions import NotFound

        rewrite = partial(self._blob(key).rewrite, self._blob(source), retry=None, timeout=self._timeout)
        token: str | None = None
        try:
            while True:
                token, _, _ = self._asked("copy", source, partial(rewrite, token=token))
                if token is None:
                    return
        except NotFound as error:
            raise missing(self.url, source) from error

    def matches(self, stored: StoredObject, source: Path) -> Transferred | None:
        return matching(stored, source)

    def delete(self, key: str) -> None:
        from google.api_core.exceptions import NotFound

        blob = self._blob(key)
        try:
            self._asked("delete", key, lambda: blob.delete(retry=None, timeout=self._timeout))
        except NotFound:
            return

    def _session(self, blob: Blob, size_bytes: int, key: str) -> str:
        return self._bucket_asked(
            "write",
            key,
            lambda: blob.create_resumable_upload_session(size=size_bytes, retry=None, timeout=self._timeout),
        )

    def _folders(self, whole: str) -> Names:
        pages = self._blobs(prefix=whole, delimiter="/", fields="prefixes,nextPageToken")
        for _ in pages:  # the folders are known once the pages were read
            continue
        return [folder.removeprefix(whole).rstrip("/") for folder in pages.prefixes]

    def _blobs(self, **options: Any) -> Any:
        return self._client.list_blobs(self._bucket, retry=None, timeout=self._timeout, **options)

    def _bucket_asked(self, verb: str, key: str, call: Callable[[], T]) -> T:
        """A call of the client that needs the bucket only."""
        from google.api_core.exceptions import NotFound

        try:
            return self._asked(verb, key, call)
        except NotFound as error:
            raise ObjectStoreError(
                f"{self._doing(verb, key)}: there is no bucket {self._bucket.name!r}. Make it, or correct "
                "the store's URL."
            ) from error

    def _asked(self, verb: str, key: str, call: Callable[[], T]) -> T:
        return asked(call, retries=self._retries, doing=self._doing(verb, key), url=self.url)

    def _blob(self, key: str) -> Blob:
        return self._bucket.blob(self._folder + checked_key(self.url, key))

    def _media(self, key: str) -> str:
        name = quote(self._folder + checked_key(self.url, key), safe="")
        return f"{self._client.api_endpoint}/download/storage/v1/b/{self._bucket.name}/o/{name}?alt=media"

    def _doing(self, verb: str, key: str) -> str:
        return f"The object store {self.url} could not {verb} {key!r}"


def _stored(blob: Blob, key: str) -> StoredObject:
    told = {"md5": blob.md5_hash, "crc32c": blob.crc32c}
    checksums = {name: hex_of(checksum) for name, checksum in told.items() if checksum}
    return StoredObject(key=key, size_bytes=blob.size, checksums=checksums)
