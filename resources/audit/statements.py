"""Short texts signed with the installation's key (`resources/signing/keys.py`): heads, seals, proofs of
deletion.

A statement is canonical JSON (sorted keys, no spaces), kept as text beside its ECDSA signature over SHA-256,
so that anybody can check it: `openssl dgst -sha256 -verify <key id>.pub -signature <signature> <statement>`.
Always the key file: a PKCS #11 or Sigstore signer (`LLM_ASSETS_SIGNER`) signs artifacts, not audit logs.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from resources.audit.places import AuditError
from resources.signing.keys import SIGNING_KEY, SignatureError, signing_key, trusted_keys

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def canonical(content: Mapping[str, Any]) -> bytes:
    """The one way to write this content: sorted keys, no spaces, UTF-8."""
    try:
        return orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # half a surrogate pair, or a number of more than 64 bits
        return _ENCODER.encode(content).encode()


def stated_in(content: bytes) -> dict[str, Any]:
    """The statement in a signed file; its signature is not looked at."""
    return dict(json.loads(json.loads(content)["statement"]))


class Signing:
    """Signs and checks with the keys in one folder."""

    def __init__(self, keys: Path) -> None:
        self.keys = keys
        self._mine: tuple[ec.EllipticCurvePrivateKey, str] | None = None
        self._mine_at: tuple[int, int] | None = None

    def signed(self, statement: Mapping[str, Any]) -> bytes:
        """The content of a file that holds this statement and its signature."""
        text = canonical(statement)
        key_id, signature = self.signature(text).split(":")
        return canonical({"key": key_id, "signature": signature, "statement": text.decode()}) + b"\n"

    def signature(self, text: bytes) -> str:
        """`<key id>:<signature in base64>` of a text."""
        key, key_id = self._key()
        return f"{key_id}:{base64.b64encode(key.sign(text, _how())).decode()}"

    def own_key_id(self) -> str:
        """The id of the key that it signs with."""
        return self._key()[1]

    def verified(self, content: bytes, what: str) -> dict[str, Any]:
        """The statement in such a file.

        Raises:
            AuditError: It was altered, or signed by nobody who is trusted here; begins with `what`.
        """
        try:
            file = json.loads(content)
            text, key_id = str(file["statement"]).encode(), str(file["key"])
            signature = base64.b64decode(file["signature"], validate=True)
            statement = dict(json.loads(text))
        except (ValueError, KeyError, TypeError) as error:
            raise AuditError(f"{what} is no signed statement: {error!r}") from error
        self.check(text, key_id, signature, what)
        return statement

    def check(self, text: bytes, key_id: str, signature: bytes, what: str) -> None:
        """Raises: AuditError: The signature does not fit, or is of nobody who is trusted here."""
        public = _public_keys(self.keys).get(key_id)
        if public is None:
            raise AuditError(f"{what} is signed with the key {key_id[:16]}…, which is not trusted here")
        from cryptography.exceptions import InvalidSignature

        try:
            public.verify(signature, text, _how())
        except InvalidSignature as error:
            raise AuditError(f"{what} was altered: its signature does not fit") from error

    def _key(self) -> "tuple[ec.EllipticCurvePrivateKey, str]":
        """Read once, and anew when the file is another one (a new key came into force)."""
        path = self.keys / SIGNING_KEY
        found = path.stat() if path.is_file() else None
        at = (found.st_ino, found.st_mtime_ns) if found else None
        if self._mine is None or at != self._mine_at:
            self._mine = _private_key(signing_key(self.keys))
            stat = path.stat()
            self._mine_at = (stat.st_ino, stat.st_mtime_ns)
        return self._mine


def _how() -> "ec.ECDSA":
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.ECDSA(hashes.SHA256())


def _private_key(path: Path) -> "tuple[ec.EllipticCurvePrivateKey, str]":
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SignatureError(f"{path} holds no elliptic-curve key; move it away and a new one is made.")
    pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return key, hashlib.sha256(pem).hexdigest()


def _public_keys(folder: Path) -> "dict[str, ec.EllipticCurvePublicKey]":
    return {key.key_id: _public_key(key.path.read_bytes()) for key in trusted_keys(folder)}


@lru_cache(maxsize=64)
def _public_key(pem: bytes) -> "ec.EllipticCurvePublicKey":
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = serialization.load_pem_public_key(pem)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise SignatureError("A trusted .pub file holds a key that is not an elliptic-curve one.")
    return key
