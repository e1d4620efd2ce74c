"""A key for each data subject of a tenant, so that what is kept of one person can be made unreadable.

    <keys>/<tenant>/pepper           32 random bytes
    <keys>/<tenant>/subjects.keys    slots of 64 bytes: HMAC-SHA256(pepper, name), then the subject's own key
    <keys>/<tenant>/erasures         a byte for each erasure, so that another process notices it

A slot says nothing about whose it is to somebody without the pepper. Erasing a subject overwrites its slot
with zeros, in place, on the disk: what was encrypted with it cannot be read again, and the pseudonym that its
records carry (an HMAC with that same key) cannot be computed again either. All files are 0600 and are never
copied: keep them out of backups that live longer than an erasure may take. Not covered: a file system or a
disk that keeps old blocks (copy on write, snapshots, flash wear levelling), for which the disk itself has to
be encrypted. About 250 bytes of memory per subject that a tenant ever had.
"""

import base64
import hmac
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from resources.audit.places import AuditError
from resources.audit.statements import canonical
from resources.durable_files import private_folder, replace_file, sync

PEPPER, SLOTS, ERASURES = "pepper", "subjects.keys", "erasures"
HASH_BYTES, KEY_BYTES, NONCE_BYTES = 32, 32, 12
SLOT_BYTES = HASH_BYTES + KEY_BYTES
PSEUDONYM_DIGITS = 32
REMEMBERED = 2_000
"""Subjects whose ciphers are kept ready."""


class Subject(NamedTuple):
    """One person's key, in use. `pseudonym` stands in the records."""

    pseudonym: str
    key: bytes
    cipher: AESGCM

    def hash(self, text: str) -> str:
        """A short keyed hash: tells the same text of the same subject, to whoever has the key."""
        return hmac.digest(self.key, text.encode("utf-8", "replace"), "sha256").hex()[:12]

    def encrypt(self, content: dict[str, object], about: str) -> str:
        """`about` (whose record) is bound to it: a ciphertext moved to another record does not decrypt."""
        nonce = os.urandom(NONCE_BYTES)
        text = self.cipher.encrypt(nonce, canonical(content), about.encode())
        return base64.b64encode(nonce + text).decode()

    def decrypt(self, text: str, about: str) -> dict[str, object]:
        sealed = base64.b64decode(text)
        try:
            content = self.cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], about.encode())
        except InvalidTag as error:
            raise AuditError(f"The personal part of record {about} was not encrypted for it.") from error
        return dict(json.loads(content))


class SubjectKeys:
    """The keys of one tenant's subjects. Whoever writes holds the tenant's lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._slots: dict[bytes, int] = {}  # name's hash -> offset
        self._read_bytes = 0
        self._version: tuple[int, ...] | None = None
        self._new: list[bytes] = []
        self._subjects: dict[str, Subject] = {}
        self._by_pseudonym: dict[str, Subject] = {}
        self._pepper: bytes | None = None

    def begin(self) -> None:
        """Once per batch, under the lock: what another process changed (an erasure) is read anew."""
        version = self._on_disk()
        if version != self._version:
            self._forget()
            self._read(self.folder / SLOTS)
            self._version = version

    def subject(self, name: str) -> Subject:
        """The subject of that name; a new one gets a key, which `settle` makes durable."""
        found = self._subjects.get(name)
        if found is None:
            found = self._known(name) or self._add(name)
            if len(self._subjects) >= REMEMBERED:
                self._subjects.clear()
            self._subjects[name] = found
        return found

    def find(self, name: str) -> Subject | None:
        """The subject of that name, if it has a key."""
        return self._subjects.get(name) or self._known(name)

    def by_pseudonym(self, pseudonym: str) -> Subject | None:
        """Whose records carry that pseudonym; None: erased."""
        if not self._by_pseudonym:
            for subject in self._all():
                self._by_pseudonym[subject.pseudonym] = subject
        return self._by_pseudonym.get(pseudonym)

    def settle(self) -> None:
        """The keys of new subjects are on the disk when this returns, before any record that needs them."""
        if not self._new:
            return
        path = self.folder / SLOTS
        made = not path.is_file()
        with open(path, "ab", opener=_private) as stream:
            torn = stream.tell() % SLOT_BYTES
            if torn:
                stream.truncate(stream.tell() - torn)
            stream.write(b"".join(self._new))
            stream.flush()
            os.fsync(stream.fileno())
        if made:
            sync(self.folder)
        self._new.clear()
        self._version = self._on_disk()
        self._read_bytes = path.stat().st_size

    def abandon(self) -> None:
        """Nothing of the batch was sealed: keys that are not on the disk are forgotten."""
        self._new.clear()
        self._version = None
        self._forget()

    def erase(self, name: str) -> str | None:
        """Destroys a subject's key; its pseudonym, or None where there is no such subject."""
        subject, path = self.find(name), self.folder / SLOTS
        if subject is None:
            return None
        offset = self._slots[self._hash(name)]
        with path.open("r+b") as stream:
            stream.seek(offset)
            stream.write(bytes(SLOT_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
        with open(self.folder / ERASURES, "ab", opener=_private) as stream:
            stream.write(b".")
        self._forget()
        self._version = None
        self.begin()
        return subject.pseudonym

    def _add(self, name: str) -> Subject:
        private_folder(self.folder)
        hashed, key = self._hash(name), os.urandom(KEY_BYTES)
        self._slots[hashed] = self._read_bytes + len(self._new) * SLOT_BYTES
        self._new.append(hashed + key)
        self._by_pseudonym.clear()
        return _subject(key)

    def _known(self, name: str) -> Subject | None:
        path = self.folder / SLOTS
        offset = self._slots.get(self._hash(name)) if self._slots else None
        if offset is None:
            return None
        if offset >= self._read_bytes:  # of this batch
            return _subject(self._new[(offset - self._read_bytes) // SLOT_BYTES][HASH_BYTES:])
        with path.open("rb") as stream:
            stream.seek(offset + HASH_BYTES)
            return _subject(stream.read(KEY_BYTES))

    def _all(self) -> Iterable[Subject]:
        path = self.folder / SLOTS
        content = path.read_bytes() if path.is_file() else b""
        for offset in self._slots.values():
            if offset < self._read_bytes:
                yield _subject(content[offset + HASH_BYTES : offset + SLOT_BYTES])

    def _on_disk(self) -> tuple[int, ...]:
        paths = (self.folder / SLOTS, self.folder / ERASURES)
        return tuple(path.stat().st_size if path.is_file() else 0 for path in paths)

    def _read(self, path: Path) -> None:
        content = path.read_bytes() if path.is_file() else b""
        self._read_bytes = len(content) - len(content) % SLOT_BYTES
        for offset in range(0, self._read_bytes, SLOT_BYTES):
            hashed = content[offset : offset + HASH_BYTES]
            if hashed.strip(b"\0"):
                self._slots[hashed] = offset

    def _forget(self) -> None:
        self._slots, self._subjects, self._by_pseudonym = {}, {}, {}
        self._new.clear()
        self._read_bytes = 0

    def _hash(self, name: str) -> bytes:
        if self._pepper is None:
            self._pepper = self._made_pepper()
        return hmac.digest(self._pepper, name.encode("utf-8", "surrogatepass"), "sha256")

    def _made_pepper(self) -> bytes:
        path = self.folder / PEPPER
        if not path.is_file():
            replace_file(path, os.urandom(HASH_BYTES), sync_folder=True)
        return path.read_bytes()


def _subject(key: bytes) -> Subject:
    pseudonym = hmac.digest(key, b"subject", "sha256").hex()[:PSEUDONYM_DIGITS]
    return Subject(pseudonym, key, AESGCM(key))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
