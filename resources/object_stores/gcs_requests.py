"""What a Google Cloud Storage client gives: credentials for our requests, and its calls with our retries."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from resources.object_stores.http_requests import Access, HttpRequests
from resources.object_stores.objects import ObjectStoreError
from resources.object_stores.retries import (
    PASSING_STATUSES,
    Passing,
    Retries,
    broken_connection,
    refused,
    retried,
)

if TYPE_CHECKING:
    from google.cloud.storage import Client

T = TypeVar("T")

CREDENTIAL = (
    "the Application Default Credentials (`gcloud auth application-default print-access-token` shows whose)"
)
PERMISSION = "storage.objects.get, list, create and delete on the bucket (role roles/storage.objectUser)"
ACCESS_LATER = (
    "Run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a key's file."
)


def new_client(url: str) -> Client:
    """A client with the Application Default Credentials, or for STORAGE_EMULATOR_HOST.

    Raises:
        ObjectStoreError: google-cloud-storage is not installed, or there are no credentials.
    """
    try:
        from google.auth.exceptions import DefaultCredentialsError
        from google.cloud import storage
    except ImportError as error:
        raise ObjectStoreError(
            f"The object store {url} needs google-cloud-storage, which is not installed here ({error}). "
            "Install it: pip install 'llm-assets[gcs]'."
        ) from error
    try:
        return storage.Client(project="-")  # objects are asked for by bucket; no project is needed
    except DefaultCredentialsError as error:
        raise ObjectStoreError(f"The object store {url} found no credentials. {ACCESS_LATER}") from error


def http_requests(client: Client, url: str, retries: Retries) -> HttpRequests:
    """Requests with the client's own credentials."""
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import Request

    credentials = client._credentials
    refresh = Request()

    def sign(method: str, address: str) -> dict[str, str]:
        headers: dict[str, str] = {}
        try:
            credentials.before_request(refresh, method, address, headers)
        except GoogleAuthError as error:
            raise _without_credentials(error, url) from error
        return headers

    return HttpRequests(Access(sign=sign, credential=CREDENTIAL, permission=PERMISSION), retries)


def asked(call: Callable[[], T], *, retries: Retries, doing: str, url: str) -> T:
    """One call of the client, whose own retries are off, with ours.

    Raises:
        google.api_core.exceptions.NotFound, PreconditionFailed: Left to the caller.
    """
    return retried(lambda: _try(call, doing, url), retries=retries, doing=doing)


def _try(call: Callable[[], T], doing: str, url: str) -> T:
    from google.api_core.exceptions import GoogleAPICallError, NotFound, PreconditionFailed
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException

    try:
        return call()
    except (NotFound, PreconditionFailed):
        raise
    except GoogleAPICallError as error:
        raise _judged(error.code or 0, error.message, doing) from error
    except GoogleAuthError as error:
        raise _without_credentials(error, url) from error
    except RequestException as error:
        raise broken_connection(error, doing) from error


def _judged(status: int, message: str, doing: str) -> Passing | ObjectStoreError:
    if status in PASSING_STATUSES:
        return Passing(f"HTTP {status}")
    if status in (401, 403):
        return refused(doing, status=status, permission=PERMISSION, credential=CREDENTIAL)
    return ObjectStoreError(f"{doing}: HTTP {status}: {message[:300]}")


def _without_credentials(error: Exception, url: str) -> Passing | ObjectStoreError:
    if getattr(error, "retryable", False):
        return Passing(f"{type(error).__name__}: {error}")
    return ObjectStoreError(f"The object store {url} got no access token: {str(error)[:300]}. {ACCESS_LATER}")
