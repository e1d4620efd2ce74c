"""The keys on disk: one that signs, and the public ones that are trusted.

    <folder>/signing.pem     the private key, EC P-256, which only its owner may read; made when first used
    <folder>/next.pem        the one that comes after it: trusted already, and signing nothing yet
    <folder>/<key id>.pub    every public key that is trusted; that of `signing.pem` is put here by itself

Keys overlap: `prepare` makes the next one and trusts it, so that everybody else can be told its id before
`rotate` lets it sign. What the old one signed stays trusted for as long as its `.pub` lies there. A key id is
the SHA-256 of the public key's PEM text, as OpenSSF model-signing writes it into a signature.
"""

import hashlib
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from resources.durable_files import create_file, replace_file
from resources.errors import LlmAssetsError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

SIGNING_KEY = "signing.pem"
NEXT_KEY = "next.pem"
PUBLIC_SUFFIX = ".pub"
SETTLE_S = 1.0
"""Whoever had opened the old key's file has read it by then; it is overwritten where it lies."""


class SignatureError(LlmAssetsError):
    """A signature is missing, does not fit, is of nobody who is trusted, or cannot be made."""


@dataclass(frozen=True, kw_only=True)
class TrustedKey:
    """A public key: whoever holds the private one may sign. `path` is its PEM file."""

    path: Path
    key_id: str


def signing_key(folder: Path) -> Path:
    """The private key; made, with its public key beside it, where there is none yet."""
    path = folder / SIGNING_KEY
    if not path.is_file():
        _make(path)
    trust(folder, _private_key(path).public_key())
    return path


def prepare(folder: Path) -> str:
    """The id of the key that will sign next; made, and trusted, where there is none yet."""
    path = folder / NEXT_KEY
    if not path.is_file():
        _make(path)
    trust(folder, _private_key(path).public_key())
    return _id_of(path)


def rotate(folder: Path, *, settle_s: float = SETTLE_S) -> tuple[str, str]:
    """Lets the prepared key sign from now on: the old one's id and the new one's. The old one is destroyed.

    Raises:
        SignatureError: None was prepared.
    """
    current, coming = folder / SIGNING_KEY, folder / NEXT_KEY
    if not coming.is_file():
        raise SignatureError(
            f"No key was prepared in {folder}: `llm-assets signing-key prepare` makes one and says its id. "
            "Tell it to whoever verifies what is signed here, then rotate."
        )
    old, new = _id_of(signing_key(folder)), _id_of(coming)
    trust(folder, _private_key(coming).public_key())
    retired = folder / f".{uuid.uuid4().hex}"
    os.link(current, retired)
    coming.replace(current)
    time.sleep(settle_s)
    with retired.open("r+b") as stream:
        stream.write(bytes(retired.stat().st_size))
        stream.flush()
        os.fsync(stream.fileno())
    retired.unlink()
    return old, new


def role_of(folder: Path, key_id: str) -> str:
    """What a trusted key is for: `signs`, `next` or `trusted`."""
    for role, name in (("signs", SIGNING_KEY), ("next", NEXT_KEY)):
        if (folder / name).is_file() and _id_of(folder / name) == key_id:
            return role
    return "trusted"


def trust(folder: Path, key: "PublicKeyTypes") -> None:
    """Puts a public key among the trusted ones."""
    from cryptography.hazmat.primitives import serialization

    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    path = folder / f"{hashlib.sha256(pem).hexdigest()}{PUBLIC_SUFFIX}"
    if not path.is_file():
        replace_file(path, pem)


def trusted_keys(folder: Path) -> tuple[TrustedKey, ...]:
    """Every public key in the folder.

    Raises:
        SignatureError: A `.pub` file holds no public key in PEM form.
    """
    files = sorted(folder.glob(f"*{PUBLIC_SUFFIX}"))
    return tuple(TrustedKey(path=file, key_id=_key_id_of(file)) for file in files)


def _make(path: Path) -> None:
    """Two processes may make one at once: the link that comes first holds, and both use that key."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    create_file(path, pem)


def _private_key(path: Path) -> "PrivateKeyTypes":
    from cryptography.hazmat.primitives import serialization

    try:
        return serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise SignatureError(
            f"{path} holds no private key in PEM form without a password: {error}. Put the right file "
            "there, or move it away: the next signature then makes a new key."
        ) from error


def public_text(path: Path) -> bytes:
    """The public key in a file as its id is made of it: PEM, nothing before or behind.

    Raises:
        SignatureError: It holds no public key in PEM form.
    """
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except ValueError as error:
        raise SignatureError(
            f"{path} holds no public key in PEM form: {error}. Take it out of the folder of trusted keys, or "
            "put the right file there."
        ) from error
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _id_of(private: Path) -> str:
    from cryptography.hazmat.primitives import serialization

    pem = _private_key(private).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(pem.public_bytes(serialization.Encoding.PEM, form)).hexdigest()


def _key_id_of(path: Path) -> str:
    return hashlib.sha256(public_text(path)).hexdigest()
