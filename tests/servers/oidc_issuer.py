"""An OpenID Connect issuer of the tests: discovery, a key set, tokens. A stand-in; it signs for anybody."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

DISCOVERY = "/.well-known/openid-configuration"
KEYS = "/keys"


class Issuer(ThreadingHTTPServer):
    """`answers` is what stands at a path: a JSON value, or (status, headers, bytes); `asked` are paths."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.key = RSAKey.generate_key(2048, {"kid": "first"})
        self.asked: list[str] = []
        self.answers: dict[str, Any] = {DISCOVERY: {"issuer": self.name, "jwks_uri": f"{self.name}{KEYS}"}}
        self.publish(self.key)

    @property
    def name(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def publish(self, *keys: RSAKey | ECKey, also: tuple[dict[str, Any], ...] = ()) -> None:
        """Makes these the issuer's key set; `also` stands in it as it is."""
        self.answers[KEYS] = {"keys": [*(key.as_dict(private=False) for key in keys), *also]}

    def token(
        self,
        *,
        key: RSAKey | ECKey | None = None,
        alg: str = "RS256",
        header: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """A token that is good for five minutes; a claim that is None is left out."""
        key = key or self.key
        told = {"iss": self.name, "sub": "anna", "exp": int(time.time()) + 300, **claims}
        headers = {"alg": alg, "kid": key.kid or "none", **(header or {})}
        given = {name: value for name, value in told.items() if value is not None}
        return jwt.encode(headers, given, key, algorithms=[alg])


class _Handler(BaseHTTPRequestHandler):
    server: Issuer

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        answer = self.server.answers.get(self.path, (404, {}, b""))
        status, headers, body = (
            answer if isinstance(answer, tuple) else (200, {}, json.dumps(answer).encode())
        )
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:  # whoever asked has had enough
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@contextmanager
def issuing(port: int = 0) -> Iterator[Issuer]:
    with Issuer(port) as issuer:
        Thread(target=issuer.serve_forever, args=(0.02,), daemon=True).start()
        yield issuer
        issuer.shutdown()


def hand_signed(header: dict[str, Any], claims: dict[str, Any], secret: bytes | None) -> str:
    """A token as no library makes it: signed with HMAC-SHA256 whatever its header says, or not at all."""
    text = f"{_encoded(json.dumps(header).encode())}.{_encoded(json.dumps(claims).encode())}"
    signature = hmac.new(secret, text.encode(), hashlib.sha256).digest() if secret is not None else b""
    return f"{text}.{_encoded(signature)}"


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
