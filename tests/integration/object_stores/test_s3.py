"""What is special to S3: copies above the limit of one request, the ETag of parts, and aborted uploads."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest

from resources.object_stores.checksums import (
    S3_MOST_PARTS,
    S3_PART_BYTES,
    PartsMd5,
    s3_part_bytes,
)
from resources.object_stores.chunks import Workers
from resources.object_stores.objects import ObjectStoreError
from resources.object_stores.opening import open_object_store
from resources.object_stores.retries import Retries
from resources.object_stores.s3_copies import copy_object
from resources.object_stores.s3_requests import S3Requests, new_client
from tests.integration.object_stores.conftest import PLACE, Servers

MakeFile = Callable[[int], Path]
MIB = 1024 * 1024


def nothing(_: int) -> None:
    """For transfers whose progress nobody watches."""


def test_an_object_too_large_for_one_copy_is_copied_in_parts(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, make_file: MakeFile, tmp_path: Path
) -> None:
    url, retries = servers("s3").enter(monkeypatch), Retries()
    store = open_object_store(url)
    sent = store.upload(make_file(20 * MIB), "a", nothing)
    folder = url.rpartition("/")[2]
    requests = S3Requests(new_client(url, retries), PLACE, retries)
    workers = Workers()
    assert copy_object(
        requests, f"{folder}/a", f"{folder}/b", workers, "The test could not copy", most_bytes=9 * MIB
    )
    requests.close()
    workers.close()
    assert store.download("b", tmp_path / "b", nothing) == sent
    assert next(store.list("")).checksums["s3_parts"].endswith("-3")


def test_the_parts_of_a_file_stay_below_their_number_and_above_their_size() -> None:
    for size_bytes in (1, 80 * 1024**3, 5 * 1024**4):
        part_bytes = s3_part_bytes(size_bytes)
        assert part_bytes >= S3_PART_BYTES
        assert -(-size_bytes // part_bytes) <= S3_MOST_PARTS


def test_the_checksum_of_parts_does_not_depend_on_how_they_are_read() -> None:
    content = bytes(range(256)) * 100
    parts = [content[at : at + 1000] for at in range(0, len(content), 1000)]
    md5s = b"".join(hashlib.md5(part).digest() for part in parts)
    for step in (1, 7, 1000, 1001, 25_600):
        hasher = PartsMd5(1000)
        for at in range(0, len(content), step):
            hasher.update(content[at : at + step])
        assert hasher.hexdigest() == f"{hashlib.md5(md5s).hexdigest()}-{len(parts)}"


def test_a_failed_upload_leaves_no_parts_that_are_paid_for(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, make_file: MakeFile
) -> None:
    source = make_file(20 * MIB)
    url = servers("s3").enter(monkeypatch)

    def vanish(_: int) -> None:
        source.unlink()
        raise ObjectStoreError("The test ended the upload.")

    with pytest.raises(ObjectStoreError, match="The test ended the upload"):
        open_object_store(url).upload(source, "a", vanish)
    client = boto3.client("s3")
    folder = url.rpartition("/")[2]  # the bucket is shared with tests whose uploads lose their answers
    assert "Uploads" not in client.list_multipart_uploads(Bucket=PLACE, Prefix=folder)
    client.close()
    assert list(open_object_store(url).list("")) == []
