"""A file into S3: small ones in one request, large ones in parts that are sent side by side."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from resources.object_stores.checksums import s3_part_bytes
from resources.object_stores.chunks import Task, Workers
from resources.object_stores.hashing import Hasher
from resources.object_stores.objects import Moved, ObjectStoreError, Transferred
from resources.object_stores.s3_requests import S3Requests


def upload(
    requests: S3Requests, source: Path, key: str, moved: Moved, *, workers: Workers, doing: str
) -> Transferred:
    """Sends `source`, which is visible only when the last request succeeded."""
    sha256, size_bytes = hashlib.sha256(), source.stat().st_size
    part_bytes = s3_part_bytes(size_bytes)
    with source.open("rb") as stream:
        if size_bytes <= part_bytes:
            content = stream.read()
            sha256.update(content)
            requests.send("put_object", doing, content, Key=key)
            moved(len(content))
        else:
            with UploadInParts(requests, key, doing) as parts:
                for sent in workers.in_order(parts.tasks(stream, part_bytes, sha256)):
                    moved(sent)
                parts.complete()
    return Transferred(size_bytes=size_bytes, sha256=sha256.hexdigest())


class UploadInParts:
    """One multipart upload; aborted unless it was completed."""

    def __init__(self, requests: S3Requests, key: str, doing: str) -> None:
        self._requests, self._key, self._doing = requests, key, doing
        self._upload: dict[str, str] = {}
        self._etags: dict[int, str] = {}

    def __enter__(self) -> UploadInParts:
        answer = self._requests.ask("create_multipart_upload", self._doing, Key=self._key)
        self._upload = {"Key": self._key, "UploadId": answer["UploadId"]}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind:
            self._requests.found("abort_multipart_upload", self._doing, **self._upload)

    def tasks(self, stream: BinaryIO, part_bytes: int, hasher: Hasher) -> Iterator[Task[int]]:
        """One task for each part, read and hashed when its turn comes; each gives the number of its bytes."""
        number = 0
        while content := stream.read(part_bytes):
            number += 1
            hasher.update(content)
            yield partial(self._send, number, content)

    def copy(self, number: int, source: dict[str, str], extent: str) -> None:
        answer = self._requests.ask(
            "upload_part_copy",
            self._doing,
            PartNumber=number,
            CopySource=source,
            CopySourceRange=extent,
            **self._upload,
        )
        self._etags[number] = answer["CopyPartResult"]["ETag"]

    def complete(self) -> None:
        parts: list[dict[str, Any]] = [
            {"PartNumber": number, "ETag": etag} for number, etag in sorted(self._etags.items())
        ]
        told = {"MultipartUpload": {"Parts": parts}}
        done = self._requests.found("complete_multipart_upload", self._doing, **told, **self._upload)
        if done is None and not self._complete():
            raise ObjectStoreError(
                f"{self._doing}: the store ended the upload before it was whole. Run again."
            )

    def _complete(self) -> bool:
        """Whether the object is there with our parts: only the answer to an earlier try was lost."""
        there = self._requests.found("head_object", self._doing, Key=self._key) or {}
        parts = b"".join(bytes.fromhex(etag.strip('"')) for _, etag in sorted(self._etags.items()))
        whole = hashlib.md5(parts, usedforsecurity=False).hexdigest()
        return there.get("ETag", "").strip('"') == f"{whole}-{len(self._etags)}"

    def _send(self, number: int, content: bytes) -> int:
        answer = self._requests.send("upload_part", self._doing, content, PartNumber=number, **self._upload)
        self._etags[number] = answer["ETag"]
        return len(content)
