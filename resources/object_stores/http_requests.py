"""HTTP requests with deadlines and retries, whose errors hold no secret; for Artifactory and Google."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import httpx

from resources.object_stores.objects import ObjectStoreError
from resources.object_stores.patience import (
    PASSING_STATUSES,
    Clock,
    Passing,
    Patience,
    broken_connection,
    persist,
    refused,
    retry_after_s,
)
from resources.object_stores.pieces import THREADS, Take

Sign = Callable[[httpx.Request], httpx.Request]
"""Adds the credentials to a request."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """How a store is entered, in the words of its errors."""

    sign: Sign
    credential: str
    permission: str


class HttpRequests:
    """One client, with its connections, for all threads."""

    def __init__(self, access: Access, patience: Patience) -> None:
        self._access, self._patience = access, patience
        self._client = httpx.Client(
            auth=access.sign,
            timeout=httpx.Timeout(
                patience.silence_s, connect=patience.connect_s, pool=patience.give_up_s + patience.silence_s
            ),
            limits=httpx.Limits(max_connections=4 * THREADS, max_keepalive_connections=4 * THREADS),
            follow_redirects=True,  # JFrog's cloud answers downloads with a signed address of its bucket
        )

    def close(self) -> None:
        self._client.close()

    def ask(
        self,
        method: str,
        address: str,
        *,
        doing: str,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
        also: tuple[int, ...] = (),
    ) -> httpx.Response:
        """One small request, with retries; `also` are the statuses above 399 that are answers too."""
        return persist(
            lambda: self.send(method, address, doing=doing, params=params, content=content, also=also),
            patience=self._patience,
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
    ) -> httpx.Response:
        """One try.

        Raises:
            Passing: What a later try may not meet.
            ObjectStoreError: What it would meet again.
        """
        try:
            answer = self._client.request(
                method,
                address,
                params=params,
                headers=headers,
                content=content,
                follow_redirects=method == "GET",
            )
        except httpx.TransportError as error:
            raise broken_connection(error, doing) from error
        self._judge(answer, doing, also)
        return answer

    def stream(self, address: str, start: int, size: int, doing: str, take: Take) -> int | None:
        """One try to read `size` bytes from `start` on, as `pieces.Reading` says; None: no such object."""
        headers = {"Range": f"bytes={start}-{start + size - 1}", "Accept-Encoding": "identity"}
        try:
            with self._client.stream("GET", address, headers=headers) as answer:
                if answer.status_code in (404, 416):
                    return None if answer.status_code == 404 else start
                if answer.status_code >= 400:
                    answer.read()
                self._judge(answer, doing, ())
                return _receive(answer, start, self._patience, doing, take)
        except httpx.TransportError as error:
            raise broken_connection(error, doing) from error

    def _judge(self, answer: httpx.Response, doing: str, also: tuple[int, ...]) -> None:
        status = answer.status_code
        if status < 400 or status in also:
            return
        if status in PASSING_STATUSES:
            raise Passing(f"HTTP {status}", retry_after_s=retry_after_s(answer.headers.get("Retry-After")))
        if status in (401, 403):
            access = self._access
            raise refused(doing, status=status, permission=access.permission, credential=access.credential)
        raise ObjectStoreError(f"{doing}: HTTP {status}: {answer.text[:300] or 'no further words'}")


def _receive(answer: httpx.Response, start: int, patience: Patience, doing: str, take: Take) -> int:
    """Takes a whole body, or raises Passing if it ended early; the size of the object."""
    if answer.status_code == 200:  # so it may be for an empty object, or without ranges
        first, expected = 0, int(answer.headers["Content-Length"])
        object_bytes = expected
    else:
        first, expected, object_bytes = content_range(answer.headers["Content-Range"])
    if first != start:
        raise ObjectStoreError(f"{doing}: the server answers another range than was asked for.")
    clock, received = Clock(patience, expected), 0
    for block in answer.iter_raw():
        clock.check()
        take(block)
        received += len(block)
    if received != expected:
        raise Passing(f"the body ended after {received} of {expected} bytes")
    return object_bytes


def content_range(header: str) -> tuple[int, int, int]:
    """`bytes 8-15/100` as the first offset, the number of bytes, and the size of the object."""
    extent, _, object_bytes = header.removeprefix("bytes ").partition("/")
    first, _, last = extent.partition("-")
    return int(first), int(last) + 1 - int(first), int(object_bytes)
