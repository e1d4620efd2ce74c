"""Requests to S3 by boto3, with our deadlines, retries and errors in place of its own."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from resources.object_stores.chunks import THREADS, Take
from resources.object_stores.http_requests import content_range
from resources.object_stores.objects import ObjectStoreError
from resources.object_stores.retries import (
    PASSING_STATUSES,
    Clock,
    Passing,
    Retries,
    broken_connection,
    refused,
    retried,
    retry_after_s,
)

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

T = TypeVar("T")

CREDENTIAL = "the AWS credentials that boto3 finds (`aws sts get-caller-identity` shows whose)"
PERMISSION = "s3:GetObject, PutObject, DeleteObject and ListBucket on the bucket"
READ_BLOCK = 64 * 1024
"""Bytes of one read: small, so that a trickle is noticed."""


def new_client(url: str, retries: Retries) -> Any:
    """A client for AWS or for AWS_ENDPOINT_URL.

    Raises:
        ObjectStoreError: boto3 is not installed, or there is no such region or profile.
    """
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise ObjectStoreError(
            f"The object store {url} needs boto3, which is not installed here ({error}). Install it: "
            "pip install 'llm-assets[s3]'."
        ) from error
    config = Config(
        connect_timeout=retries.connect_s,
        read_timeout=retries.silence_s,
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=4 * THREADS,
    )
    try:
        session = boto3.session.Session()
        client = session.client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        raise ObjectStoreError(
            f"The object store {url} cannot be entered: {error}. Look at {CREDENTIAL}."
        ) from error
    if ".amazonaws." in client.meta.endpoint_url:
        return client
    client.close()
    by_path = config.merge(Config(s3={"addressing_style": "path"}))
    return session.client("s3", config=by_path)


class Body(io.BytesIO):
    """Content that is sent block by block, so that a slow network is told from a silent one.

    Plain bytes would have to leave within one socket timeout, however many they are.
    """

    def __init__(self, content: bytes, retries: Retries) -> None:
        super().__init__(content)
        self._clock = Clock(retries, len(content))

    def read(self, size: int | None = -1, /) -> bytes:
        self._clock.check()
        return super().read(size)


class S3Requests:
    """The requests to one bucket."""

    def __init__(self, client: Any, bucket: str, retries: Retries) -> None:
        self._client, self.bucket, self.retries = client, bucket, retries

    def close(self) -> None:
        self._client.close()

    def ask(self, verb: str, doing: str, **options: Any) -> dict[str, Any]:
        """One call with retries.

        Raises:
            ObjectStoreError: It failed for good or for too long.
        """
        return self.retried(lambda: self.call(verb, doing, **options), doing)

    def found(self, verb: str, doing: str, **options: Any) -> dict[str, Any] | None:
        """One call with retries; None where the object or upload that it needs is not there."""
        return self.retried(lambda: self._found(verb, doing, **options), doing)

    def retried(self, attempt: Callable[[], T], doing: str) -> T:
        return retried(attempt, retries=self.retries, doing=doing)

    def send(self, verb: str, doing: str, content: bytes, **options: Any) -> dict[str, Any]:
        """One call with a body, with retries."""
        return self.retried(
            lambda: self.call(verb, doing, Body=Body(content, self.retries), **options), doing
        )

    def put_new(self, key: str, content: bytes, doing: str) -> bool:
        """One try to write an object where there is none; False where there is one."""
        from botocore.exceptions import ClientError

        try:
            self._call("put_object", doing, Key=key, Body=Body(content, self.retries), IfNoneMatch="*")
        except ClientError as error:
            if _status(error) == 412:
                return False
            if _status(error) == 409:
                raise Passing("HTTP 409: another writer is at it") from error
            raise _judged(error, doing) from error
        return True

    def call(self, verb: str, doing: str, **options: Any) -> dict[str, Any]:
        """One try."""
        from botocore.exceptions import ClientError

        try:
            return self._call(verb, doing, **options)
        except ClientError as error:
            raise _judged(error, doing) from error

    def stream(self, key: str, start: int, size: int, doing: str, take: Take) -> int | None:
        """One try to read `size` bytes from `start` on, as `chunks.Reading` says; None: no such object."""
        from botocore.exceptions import ClientError

        try:
            answer = self._call("get_object", doing, Key=key, Range=f"bytes={start}-{start + size - 1}")
        except ClientError as error:
            if _status(error) == 416:
                return start
            if _missing(error):
                return None
            raise _judged(error, doing) from error
        expected = object_bytes = int(answer["ContentLength"])
        if "ContentRange" in answer:
            _, expected, object_bytes = content_range(answer["ContentRange"])
        self._receive(answer["Body"], expected, doing, take)
        return object_bytes

    def _receive(self, body: Any, expected: int, doing: str, take: Take) -> None:
        from botocore.exceptions import BotoCoreError
        from urllib3.exceptions import HTTPError

        clock, left = Clock(self.retries, expected), expected
        with body:
            while left:
                try:
                    block = body.read(min(READ_BLOCK, left))
                except (BotoCoreError, HTTPError, OSError) as error:
                    raise broken_connection(error, doing) from error
                if not block:
                    raise Passing(f"the body ended {left} bytes before its end, of {expected}")
                clock.check()
                take(block)
                left -= len(block)

    def _found(self, verb: str, doing: str, **options: Any) -> dict[str, Any] | None:
        from botocore.exceptions import ClientError

        try:
            return self._call(verb, doing, **options)
        except ClientError as error:
            if _missing(error):
                return None
            raise _judged(error, doing) from error

    def _call(self, verb: str, doing: str, **options: Any) -> dict[str, Any]:
        """One try, whose HTTP answers are left to the caller as ClientError."""
        from botocore.exceptions import (
            BotoCoreError,
            CredentialRetrievalError,
            NoCredentialsError,
            ParamValidationError,
            PartialCredentialsError,
        )

        try:
            return getattr(self._client, verb)(Bucket=self.bucket, **options)
        except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError) as error:
            raise ObjectStoreError(
                f"{doing}: {error}. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give "
                "the pod a role."
            ) from error
        except ParamValidationError as error:
            raise ObjectStoreError(f"{doing}: {error}") from error
        except (BotoCoreError, OSError) as error:
            raise broken_connection(error, doing) from error


def _judged(error: ClientError, doing: str) -> Passing | ObjectStoreError:
    status, told = _status(error), error.response.get("Error", {})
    headers: Mapping[str, str] = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    if status in PASSING_STATUSES or told.get("Code") in ("SlowDown", "RequestTimeout"):
        return Passing(f"HTTP {status}", retry_after_s=retry_after_s(headers.get("retry-after")))
    if status in (401, 403):
        return refused(doing, status=status, permission=PERMISSION, credential=CREDENTIAL)
    return ObjectStoreError(f"{doing}: HTTP {status}: {told.get('Code')}: {str(told.get('Message'))[:300]}")


def _missing(error: ClientError) -> bool:
    """The object, or the upload in parts, is not there; a missing bucket is told as an error."""
    return error.response.get("Error", {}).get("Code") in ("NoSuchKey", "NoSuchUpload", "404", "NotFound")


def _status(error: ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
