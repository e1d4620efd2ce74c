"""Copies inside a bucket: whole up to 5 GiB, the most that one request of S3 copies, and in parts above."""

from collections.abc import Iterator
from functools import partial

from resources.object_stores.checksums import S3_COPIED_PART_BYTES, s3_part_bytes
from resources.object_stores.chunks import Task, Workers
from resources.object_stores.s3_requests import S3Requests
from resources.object_stores.s3_uploads import UploadInParts

MOST_BYTES = 5 * 1024**3
"""https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html"""


def copy_object(
    requests: S3Requests, source: str, key: str, workers: Workers, doing: str, *, most_bytes: int = MOST_BYTES
) -> bool:
    """Copies `source` to `key`; False where there is no `source`."""
    told = requests.found("head_object", doing, Key=source)
    if told is None:
        return False
    original = {"Bucket": requests.bucket, "Key": source}
    size_bytes = told["ContentLength"]
    if size_bytes <= most_bytes:
        return requests.found("copy_object", doing, Key=key, CopySource=original) is not None
    with UploadInParts(requests, key, doing) as parts:
        for _ in workers.in_order(_tasks(parts, original, size_bytes, min(S3_COPIED_PART_BYTES, most_bytes))):
            continue
        parts.complete()
    return True


def _tasks(
    parts: UploadInParts, original: dict[str, str], size_bytes: int, part_bytes: int
) -> Iterator[Task[None]]:
    part_bytes = max(part_bytes, s3_part_bytes(size_bytes))
    for number, start in enumerate(range(0, size_bytes, part_bytes), start=1):
        last = min(start + part_bytes, size_bytes) - 1
        yield partial(parts.copy, number, original, f"bytes={start}-{last}")
