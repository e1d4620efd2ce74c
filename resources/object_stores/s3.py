"""Objects in an S3-compatible bucket: AWS, MinIO, Ceph, or Google Cloud Storage by its S3 interface.

boto3 finds the credentials and the region as everywhere (environment, profile, IRSA, instance);
AWS_ENDPOINT_URL names another server than AWS, which is then asked by path, not by host. Large files go in
parts, copies above 5 GiB too. Memory: see `chunks.py`, for uploads and downloads alike. Not covered: parts of
an upload whose writer was killed stay until the bucket's rule AbortIncompleteMultipartUpload ends them (set
one day); with encryption by KMS keys an ETag is no MD5, so `matches` knows no file there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from resources.object_stores import chunks
from resources.object_stores.checksums import S3_PARTS, matching
from resources.object_stores.closing import closed_with
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
from resources.object_stores.retries import Retries
from resources.object_stores.s3_copies import copy_object
from resources.object_stores.s3_requests import S3Requests, new_client
from resources.object_stores.s3_uploads import upload

SCHEME = "s3://"
READ_BLOCK = 16 * 1024
"""Small, so that a trickle is noticed."""


class S3Store:
    """The objects below a prefix of one bucket."""

    def __init__(self, url: str, *, retries: Retries | None = None) -> None:
        """`url` as in `s3://bucket/folder`; credentials and endpoint from the environment."""
        self.url = SCHEME + url.removeprefix(SCHEME).strip("/")
        self._bucket, _, folder = self.url.removeprefix(SCHEME).partition("/")
        if not self._bucket:
            raise ObjectStoreError(f"{url!r} names no bucket: s3://<bucket>/<folder> does.")
        self._folder = f"{folder}/" if folder else ""
        self._retries = retries or Retries()
        self._requests = S3Requests(new_client(self.url, self._retries), self._bucket, self._retries)
        self._workers = chunks.Workers()
        closed_with(self, self._requests.close, self._workers.close)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        whole = self._folder + checked_prefix(self.url, prefix)
        for page in self._pages("list", prefix, Prefix=whole):
            for told in page.get("Contents", ()):
                stored = _stored(told, told["Key"].removeprefix(self._folder))
                if not unfinished(stored.key):
                    yield stored

    def folders(self, prefix: str) -> Names:
        whole = self._folder + checked_prefix(self.url, prefix)
        pages = self._pages("list", prefix, Prefix=whole, Delimiter="/")
        folders = [told["Prefix"] for page in pages for told in page.get("CommonPrefixes", ())]
        names = (folder.removeprefix(whole).rstrip("/") for folder in folders)
        return sorted(name for name in names if not unfinished(name))

    def read(self, key: str) -> bytes:
        return chunks.read(self._reading(key))

    def create(self, key: str, content: bytes) -> bool:
        whole, doing, tries = self._key(key), self._doing("create", key), [0]

        def write() -> bool:
            tries[0] += 1
            return self._requests.put_new(whole, content, doing)

        if self._requests.retried(write, doing):
            return True
        return tries[0] > 1 and self.read(key) == content  # we were first, and only the answer was lost

    def upload(self, source: Path, key: str, moved: Moved) -> Transferred:
        return upload(
            self._requests,
            source,
            self._key(key),
            moved,
            workers=self._workers,
            doing=self._doing("write", key),
        )

    def download(self, key: str, target: Path, moved: Moved) -> Transferred:
        return chunks.download(self._reading(key), target, moved, self._workers)

    def copy(self, source: str, key: str) -> None:
        original, target = self._key(source), self._key(key)
        if not copy_object(self._requests, original, target, self._workers, self._doing("copy", source)):
            raise missing(self.url, source)

    def matches(self, stored: StoredObject, source: Path) -> Transferred | None:
        return matching(stored, source)

    def delete(self, key: str) -> None:
        self._requests.ask("delete_object", self._doing("delete", key), Key=self._key(key))

    def _reading(self, key: str) -> chunks.Reading:
        whole, doing = self._key(key), self._doing("read", key)

        def stream(start: int, size: int, take: chunks.Take) -> int:
            object_bytes = self._requests.stream(whole, start, size, doing, take)
            if object_bytes is None:
                raise missing(self.url, key)
            return object_bytes

        return chunks.Reading(stream=stream, retries=self._retries, doing=doing)

    def _pages(self, verb: str, prefix: str, **options: str) -> Iterator[dict[str, Any]]:
        token: dict[str, str] = {}
        while True:
            page = self._requests.ask("list_objects_v2", self._doing(verb, prefix), **options, **token)
            yield page
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _key(self, key: str) -> str:
        return self._folder + checked_key(self.url, key)

    def _doing(self, verb: str, key: str) -> str:
        return f"The object store {self.url} could not {verb} {key!r}"


def _stored(told: dict[str, Any], key: str) -> StoredObject:
    etag = told["ETag"].strip('"')
    name = S3_PARTS if "-" in etag else "md5"
    return StoredObject(key=key, size_bytes=told["Size"], checksums={name: etag})
