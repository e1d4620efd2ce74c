"""What every object store does, in the words that the artifact store uses.

Keys are relative to the store's URL, POSIX-like (`models/team-a/support_bot/…/model.safetensors`), and may
hold spaces and any letters. All verbs may be called from several threads at once.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from resources.errors import LlmAssetsError

UNFINISHED = ".unfinished-"
"""How the names of temporary files and claims begin; no listing shows them."""

Names = list[str]
"""Its own name, because `list` is a verb of the stores."""

Moved = Callable[[int], None]
"""Told each number of bytes that was moved, always on the thread that called the store."""


class ObjectStoreError(LlmAssetsError):
    """A store could not do what was asked: which store, which key, what was seen, what to do next."""


class ObjectMissing(ObjectStoreError):
    """There is no object at that key."""


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """An object as its store lists it, with the checksums that the store itself keeps.

    `checksums` maps `md5`, `sha1`, `sha256` or `crc32c` to hex, and `s3_parts` to an S3 ETag of several
    parts. It may be empty.
    """

    key: str
    size_bytes: int
    checksums: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Transferred:
    """What a transfer moved, hashed while it moved."""

    size_bytes: int
    sha256: str


class ObjectStore(Protocol):
    """A place for objects. Every verb raises ObjectStoreError after its deadline, and where it is refused."""

    @property
    def url(self) -> str:
        """Where it is; never with credentials."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every object below `prefix` (`""` or `a/b/`), at any depth, sorted by key."""

    def folders(self, prefix: str) -> Names:
        """The names of the folders directly below `prefix`, sorted."""

    def read(self, key: str) -> bytes:
        """A small object, in memory.

        Raises:
            ObjectMissing: It is not there.
        """

    def create(self, key: str, content: bytes) -> bool:
        """Writes a small object where there is none, atomically; False where there is one already."""

    def upload(self, source: Path, key: str, moved: Moved) -> Transferred:
        """Writes `source` to `key`, whole or not visibly, in place of what may be there."""

    def download(self, key: str, target: Path, moved: Moved) -> Transferred:
        """Writes the object to `target`, going on behind the bytes that `target` already holds.

        What a killed download left is a prefix of the object; should the object have changed since, the hash
        tells.

        Raises:
            ObjectMissing: It is not there.
        """

    def copy(self, source: str, key: str) -> None:
        """Copies inside the store; no bytes pass through here.

        Raises:
            ObjectMissing: There is no object at `source`.
        """

    def matches(self, stored: StoredObject, source: Path) -> Transferred | None:
        """What `source` holds, if by the store's own checksum `stored` holds the same; else None."""

    def delete(self, key: str) -> None:
        """Deletes an object; one that is gone already is deleted too."""


def checked_key(url: str, key: str) -> str:
    parts = key.split("/")
    if any(part in ("", ".", "..") or part.startswith(UNFINISHED) for part in parts) or "\0" in key:
        raise ObjectStoreError(
            f"The object store {url} takes no key {key!r}: a key is a relative path such as 'a/b.txt', and "
            f"none of its parts is empty, '.', '..' or begins with {UNFINISHED!r}."
        )
    return key


def checked_prefix(url: str, prefix: str) -> str:
    if prefix:
        if not prefix.endswith("/"):
            raise ObjectStoreError(f"The object store {url} lists below '' or 'a/b/', not below {prefix!r}.")
        checked_key(url, prefix.removesuffix("/"))
    return prefix


def unfinished(key: str) -> bool:
    """Whether `key` is a temporary of some writer, which no listing shows."""
    return any(part.startswith(UNFINISHED) for part in key.split("/"))


def missing(url: str, key: str) -> ObjectMissing:
    return ObjectMissing(
        f"The object store {url} holds no object {key!r}. It was never written, or it was deleted; list the "
        "store to see what is there."
    )
