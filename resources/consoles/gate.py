"""What stands in front of a console's application: nothing passes without a token.

Beside the token, who asks by a browser must ask from the console's own page: a page of another origin, a host
name that only resolves to this machine (DNS rebinding), a frame in another page are refused. GET never
changes anything, whatever the token: a link or a picture in some page could ask it. What a read-only token
may ask, `Reading` says for the application at hand.

An ASGI middleware. Not covered: another program of the same user, which can read the token's file; a page at
another port of this host sees requests to itself with the console's cookie (as with Jupyter).
"""

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from http.cookies import SimpleCookie
from typing import Any, Protocol, get_args
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from resources.consoles.consoles import Access, Console, cookie_value

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

ACCESS = "llm_assets.access"
"""The key in the scope that tells the application how the asker may use it."""
TOKEN_PARAMETER = "token"  # noqa: S105  its name
READ_METHODS = ("GET", "HEAD", "OPTIONS")
LONGEST_QUESTION_BYTES = 2**20  # of a request that only reads


@dataclass(frozen=True, kw_only=True)
class Question:
    """A request whose right to be answered depends on what it asks."""

    method: str
    path: str
    query: str
    body: bytes


class Reading(Protocol):
    """What may be asked of an application without changing anything."""

    def refusal(self, question: Question) -> str | None:
        """Why a request is not one that only reads; None where it is."""

    def message_refusal(self, text: str) -> str | None:
        """As `refusal`, for one message over a web socket."""


class Refused(Exception):
    """Is answered to whoever asked."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class Gate:
    """The application behind its console's tokens."""

    def __init__(self, app: Application, console: Console, reading: Reading) -> None:
        self._app, self._console, self._reading = app, console, reading
        tokens = {access: console.token(access) for access in get_args(Access)}
        self._by_token = {token.encode(): access for access, token in tokens.items()}
        self._by_cookie = {cookie_value(token).encode(): access for access, token in tokens.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = _headers(scope)
        try:
            if scope["type"] == "http" and (link := self._link(scope, headers)):
                await _redirect(send, *link)
                return
            access = self._access(scope, headers)
            _forget_credentials(scope, self._console.cookie)
            scope[ACCESS] = access
            if scope["type"] == "http" and (access == "read-only" or scope["method"] in READ_METHODS):
                receive = await self._only_reading(scope, receive)
            elif scope["type"] == "websocket" and access == "read-only":
                receive = self._only_reading_messages(receive)
        except Refused as refusal:
            await _refuse(scope, send, refusal)
            return
        await self._app(scope, receive, send)

    def _link(self, scope: Scope, headers: Mapping[str, str]) -> tuple[str, str] | None:
        """For a link with a token: its clean address, and the cookie to be set."""
        parameters = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        tokens = [value for name, value in parameters if name == TOKEN_PARAMETER]
        if not tokens or scope["method"] != "GET":
            return None
        _require_own_host(headers)
        if _known(self._by_token, tokens[-1]) is None:
            raise self._unknown("The token of this link is not, or is no longer, a token of it.")
        rest = urlencode([(name, value) for name, value in parameters if name != TOKEN_PARAMETER])
        address = "/" + quote(scope["path"].lstrip("/")) + (f"?{rest}" if rest else "")
        cookie = f"{self._console.cookie}={cookie_value(tokens[-1])}; Path=/; HttpOnly; SameSite=Strict"
        return address, cookie

    def _access(self, scope: Scope, headers: Mapping[str, str]) -> Access:
        _require_own_host(headers)
        _require_own_page(scope, headers)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and (access := _known(self._by_token, token.strip())):
            return access
        cookies = SimpleCookie(headers.get("cookie", ""))
        if (cookie := cookies.get(self._console.cookie)) and (
            access := _known(self._by_cookie, cookie.value)
        ):
            _require_known_page(scope, headers)
            return access
        raise self._unknown("It answers nobody without a token.")

    def _unknown(self, why: str) -> Refused:
        text = (
            f"This is {self._console.title}. {why} `llm-assets links` prints a link that opens it; programs "
            "send `Authorization: Bearer TOKEN`."
        )
        return Refused(HTTPStatus.UNAUTHORIZED, text)

    async def _only_reading(self, scope: Scope, receive: Receive) -> Receive:
        """Refuses what would change something; gives what the application then receives."""
        body = await _body(receive)
        question = Question(
            method=scope["method"],
            path=scope["path"],
            query=scope["query_string"].decode("latin-1"),
            body=body,
        )
        if why := self._reading.refusal(question):
            raise Refused(HTTPStatus.FORBIDDEN, f"This was asked to be read only: {why}")
        given = False

        async def again() -> MutableMapping[str, Any]:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        return again

    def _only_reading_messages(self, receive: Receive) -> Receive:
        """A message that would change something ends the connection."""

        async def checked() -> MutableMapping[str, Any]:
            message = await receive()
            if message["type"] == "websocket.receive":
                text = message.get("text") or (message.get("bytes") or b"").decode(errors="replace")
                if self._reading.message_refusal(text):
                    return {"type": "websocket.disconnect", "code": 1008}  # RFC 6455: a policy is violated
            return message

        return checked


def _headers(scope: Scope) -> dict[str, str]:
    """Of several with one name the last; browsers and programs send each of those we read once."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _forget_credentials(scope: Scope, cookie: str) -> None:
    """The application needs none of them, and could write them down."""
    kept = []
    for name, value in scope["headers"]:
        if name == b"authorization":
            continue
        if name == b"cookie":
            parts = [part.strip() for part in value.decode("latin-1").split(";")]
            value = "; ".join(part for part in parts if not part.startswith(f"{cookie}=")).encode("latin-1")
        kept.append((name, value))
    scope["headers"] = kept


def _known(secrets: Mapping[bytes, Access], presented: str) -> Access | None:
    """Compares with every one of them, in a time that says nothing about how much is right."""
    encoded = presented.encode()
    found = [access for secret, access in secrets.items() if hmac.compare_digest(secret, encoded)]
    return found[0] if found else None


def _require_own_host(headers: Mapping[str, str]) -> None:
    host = headers.get("host", "")
    if not _is_loopback(host):
        raise Refused(HTTPStatus.FORBIDDEN, f"{host!r} is not a name of this machine; 127.0.0.1 is.")


def _is_loopback(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _require_own_page(scope: Scope, headers: Mapping[str, str]) -> None:
    """A browser says which page asks. Only following a link may begin elsewhere."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
    own = origin is None or urlsplit(origin).netloc == headers["host"]
    follows_a_link = (
        scope["type"] == "http"
        and scope["method"] == "GET"
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )
    if not own or not (site in ("same-origin", "none") or follows_a_link):
        raise Refused(HTTPStatus.FORBIDDEN, "A page of another address may not ask here.")


def _require_known_page(scope: Scope, headers: Mapping[str, str]) -> None:
    """Browsers send the cookie by themselves, so what changes something has to say that our own page asks."""
    changes = scope["type"] == "websocket" or scope["method"] not in READ_METHODS
    if changes and "origin" not in headers and headers.get("sec-fetch-site") != "same-origin":
        raise Refused(HTTPStatus.FORBIDDEN, "The browser does not say that the console's own page asks.")


async def _body(receive: Receive) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(HTTPStatus.BAD_REQUEST, "The request ended before its body did.")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > LONGEST_QUESTION_BYTES:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"Who only reads sends at most {LONGEST_QUESTION_BYTES} bytes.",
            )
        if not message.get("more_body", False):
            return b"".join(parts)


async def _refuse(scope: Scope, send: Send, refusal: Refused) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": ""})  # before it was accepted: 403
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
    if refusal.status == HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": int(refusal.status), "headers": headers})
    await send({"type": "http.response.body", "body": f"{refusal.text}\n".encode()})


async def _redirect(send: Send, address: str, cookie: str) -> None:
    headers = [
        (b"location", address.encode("latin-1")),
        (b"set-cookie", cookie.encode("latin-1")),
        (b"referrer-policy", b"no-referrer"),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": int(HTTPStatus.SEE_OTHER), "headers": headers})
    await send({"type": "http.response.body", "body": b""})
