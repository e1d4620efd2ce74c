"""HTTP requests with deadlines and retries, whose errors hold no secret; for Artifactory and Google."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from urllib3 import BaseHTTPResponse as Response
from urllib3.exceptions import HTTPError

from resources.object_stores.chunks import THREADS, Take
from resources.object_stores.connections import Connections
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

Sign = Callable[[str, str], Mapping[str, str]]
"""The headers that let in a request with this method, to this address."""
BLOCK = 256 * 1024
"""Bytes of a body that are taken at once, at most."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """How a store is entered, in the words of its errors."""

    sign: Sign
    credential: str
    permission: str


class HttpRequests:
    """One client, with its connections, for all threads."""

    def __init__(self, access: Access, retries: Retries) -> None:
        self._access, self._retries = access, retries
        self._connections = Connections(retries, kept=4 * THREADS)

    def close(self) -> None:
        self._connections.close()

    def ask(
        self,
        method: str,
        address: str,
        *,
        doing: str,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
        also: tuple[int, ...] = (),
    ) -> Response:
        """One small request, with retries; `also` are the statuses above 399 that are answers too."""
        return retried(
            lambda: self.send(method, address, doing=doing, params=params, content=content, also=also),
            retries=self._retries,
            doing=doing,
        )

    def send(
        self,
        method: str,
        address: str,
        *,
        doing: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | Iterable[bytes] | None = None,
        also: tuple[int, ...] = (),
    ) -> Response:
        """One try.

        Raises:
            Passing: What a later try may not meet.
            ObjectStoreError: What it would meet again.
        """
        if params:
            address = f"{address}?{urlencode(params, quote_via=quote)}"
        headers = {**(headers or {}), **self._access.sign(method, address)}
        try:
            answer = self._connections.ask(method, address, headers=headers, body=content)
        except HTTPError as error:
            raise broken_connection(error, doing) from error
        self._judge(answer, doing, also)
        return answer

    def stream(self, address: str, start: int, size: int, doing: str, take: Take) -> int | None:
        """One try to read `size` bytes from `start` on, as `chunks.Reading` says; None: no such object."""
        headers = {"Range": f"bytes={start}-{start + size - 1}", **self._access.sign("GET", address)}
        try:
            with self._connections.ask("GET", address, headers=headers, whole=False) as answer:
                if answer.status in (404, 416):
                    answer.drain_conn()
                    return None if answer.status == 404 else start
                self._judge(answer, doing, ())
                return _receive(answer, start, self._retries, doing, take)
        except HTTPError as error:
            raise broken_connection(error, doing) from error

    def _judge(self, answer: Response, doing: str, also: tuple[int, ...]) -> None:
        status = answer.status
        if status < 400 or status in also:
            return
        if status in PASSING_STATUSES:
            raise Passing(f"HTTP {status}", retry_after_s=retry_after_s(answer.headers.get("Retry-After")))
        if status in (401, 403):
            access = self._access
            raise refused(doing, status=status, permission=access.permission, credential=access.credential)
        raise ObjectStoreError(f"{doing}: HTTP {status}: {_words(answer) or 'no further words'}")


def _receive(answer: Response, start: int, retries: Retries, doing: str, take: Take) -> int:
    """Takes a whole body, or raises Passing if it ended early; the size of the object."""
    if answer.status == 200:  # so it may be for an empty object, or without ranges
        first, expected = 0, int(answer.headers["Content-Length"])
        object_bytes = expected
    else:
        first, expected, object_bytes = content_range(answer.headers["Content-Range"])
    if first != start:
        raise ObjectStoreError(f"{doing}: the server answers another range than was asked for.")
    clock, received = Clock(retries, expected), 0
    while block := answer.read1(BLOCK, decode_content=False):
        clock.check()
        take(block)
        received += len(block)
    if received != expected:
        raise Passing(f"the body ended after {received} of {expected} bytes")
    return object_bytes


def _words(answer: Response) -> str:
    """The begin of what a server says about an error."""
    return answer.data.decode(errors="replace")[:300]


def content_range(header: str) -> tuple[int, int, int]:
    """`bytes 8-15/100` as the first offset, the number of bytes, and the size of the object."""
    extent, _, object_bytes = header.removeprefix("bytes ").partition("/")
    first, _, last = extent.partition("-")
    return int(first), int(last) + 1 - int(first), int(object_bytes)
