"""A file into Google Cloud Storage: small ones in one request, large ones resumable.

https://cloud.google.com/storage/docs/resumable-uploads. A resumable upload is one request for the whole file;
if it breaks, the server is asked how much it holds and the rest is sent. A test server that answers this
question wrongly is found out by the checksum of what it stored.
"""

import base64
from collections.abc import Callable
from typing import Any

from urllib3 import BaseHTTPResponse as Response

from resources.object_stores.http_requests import HttpRequests
from resources.object_stores.objects import Transferred
from resources.object_stores.retries import Passing
from resources.object_stores.sending import Sending

SMALL_BYTES = 8 * 1024 * 1024
"""Up to this size a broken upload begins again; above, it goes on."""
UNFINISHED_STATUS = 308


class Crc32c:
    """The checksum that Google answers to an upload, in hex."""

    def __init__(self) -> None:
        self._crc = 0

    def update(self, data: Any, /) -> None:
        from google_crc32c import extend

        self._crc = extend(self._crc, data)

    def hexdigest(self) -> str:
        return f"{self._crc:08x}"


class GcsUpload:
    """One file on its way, over several tries."""

    def __init__(
        self,
        *,
        http: HttpRequests,
        sending: Sending,
        crc32c: Crc32c,
        new_session: Callable[[], str],
        doing: str,
    ) -> None:
        self._http, self._sending, self._crc32c = http, sending, crc32c
        self._new_session, self._doing = new_session, doing
        self._session: str | None = None

    def small(self, address: str, key: str) -> Transferred:
        """One try to send it in one request."""
        answer = self._http.send(
            "POST",
            address,
            doing=self._doing,
            params={"uploadType": "media", "name": key},
            headers=self._headers(self._sending.size_bytes),
            content=self._sending.blocks(),
        )
        return self._proven(answer)

    def resumable(self) -> Transferred:
        """One try, which goes on where the one before broke off."""
        if self._session is None:
            self._session = self._new_session()
            return self._proven(self._rest(self._session, 0))
        held = self._http.send(
            "PUT",
            self._session,
            doing=self._doing,
            headers={"Content-Range": f"bytes */{self._sending.size_bytes}"},
            also=(404, 410),
        )
        if held.status == UNFINISHED_STATUS:
            return self._proven(self._rest(self._session, _received(held)))
        if held.status in (404, 410):
            self._session = None
            raise Passing(f"it forgot the upload (HTTP {held.status})")
        return self._proven(held)

    def _rest(self, session: str, start: int) -> Response:
        size = self._sending.size_bytes
        headers = self._headers(size - start) | {"Content-Range": f"bytes {start}-{size - 1}/{size}"}
        return self._http.send(
            "PUT", session, doing=self._doing, headers=headers, content=self._sending.blocks(start)
        )

    def _headers(self, size: int) -> dict[str, str]:
        return {"Content-Length": str(size), "Content-Type": "application/octet-stream"}

    def _proven(self, answer: Response) -> Transferred:
        """What was sent, if the server stored the same; else another try from the start."""
        if answer.status == UNFINISHED_STATUS:
            raise Passing("it took a part of the file only")
        transferred, stored = self._sending.transferred, self._stored(answer)
        if transferred is None or stored != (transferred.size_bytes, self._crc32c.hexdigest()):
            self._session = None
            raise Passing("it stored other bytes than were sent")
        return transferred

    def _stored(self, answer: Response) -> tuple[int, str]:
        told: dict[str, Any] = answer.json()
        return int(told["size"]), hex_of(told["crc32c"])


def _received(held: Response) -> int:
    """`Range: bytes=0-524287` means 524288 bytes; no such header, none."""
    extent = held.headers.get("Range", "")
    return int(extent.rpartition("-")[2]) + 1 if extent else 0


def hex_of(base64_text: str) -> str:
    return base64.b64decode(base64_text).hex()
