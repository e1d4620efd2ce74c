"""The size limit: bytes are set aside before they are fetched, and the least recently used makes room.

All of it happens under one lock, so that what several processes fetch at once fits together. A leased
artifact is never evicted, and neither is a content that an artifact needs which is there or coming.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from resources.artifacts import Artifact, ArtifactError
from resources.node_cache import folders
from resources.node_cache.locks import locked, try_lock, unlock
from resources.node_cache.places import Places
from resources.node_cache.survey import (
    Cached,
    Stored,
    all_cached,
    all_stored,
    contents_of,
    find,
    hex_digest,
    lease_of,
    touch,
    write_manifest,
)

MIB = 2**20
BUSY = "it sets space aside in the node's cache"

Log = Callable[[str], None]


def set_aside(places: Places, artifact: Artifact, *, limit_bytes: int, log: Log) -> None:
    """Makes room for an artifact whose lease is held, and writes down that it comes.

    Raises:
        ArtifactError: It is larger than the cache, or what is held leaves it no room.
    """
    if find(places, hex_digest(artifact)):
        return
    wanted = contents_of(artifact.files)
    if (size_bytes := sum(wanted.values())) > limit_bytes:
        raise ArtifactError(
            f"{artifact.uri} has {_mib(size_bytes)}, more than the node's cache at {places.root} may hold "
            f"({_mib(limit_bytes)}). Raise LLM_ASSETS_CACHE_GIB; nothing was fetched."
        )
    with locked(places.space_lock(), what=BUSY, log=log):
        space = Space(places, wanted, log)
        needed_bytes = sum(size for sha256, size in wanted.items() if not space.has(sha256))
        space.make_room(
            lambda: (
                space.set_aside_bytes + needed_bytes <= limit_bytes
                and space.to_come_bytes + needed_bytes <= shutil.disk_usage(places.root).free
            )
        )
        if space.set_aside_bytes + needed_bytes > limit_bytes:
            raise ArtifactError(_no_room(space, artifact, needed_bytes, limit_bytes))
        if space.to_come_bytes + needed_bytes > shutil.disk_usage(places.root).free:
            raise ArtifactError(_no_disk(space, artifact, needed_bytes))
        for file in artifact.files:
            if not space.has(file.sha256):
                places.part(file).touch()
        write_manifest(places, artifact)


def prune(places: Places, *, to_bytes: int, log: Log) -> tuple[Cached, ...]:
    """Evicts by least use until at most `to_bytes` are left; gives what was evicted."""
    with locked(places.space_lock(), what=BUSY, log=log):
        space = Space(places, {}, log)
        space.sweep()
        space.make_room(lambda: space.set_aside_bytes <= to_bytes)
        return tuple(space.evicted)


class Space:
    """What is set aside, as seen under the lock of the space; nobody else changes that meanwhile."""

    def __init__(self, places: Places, wanted: Iterable[str], log: Log) -> None:
        self._places, self._wanted, self._log = places, tuple(wanted), log
        self.root = places.root
        self._stored = all_stored(places)
        self.set_aside_bytes = sum(each.set_aside_bytes for each in self._stored.values())
        self.to_come_bytes = sum(_to_come_bytes(each) for each in self._stored.values())
        self.evicted: list[Cached] = []
        self.kept: list[Cached] = []

    def has(self, sha256: str) -> bool:
        return sha256 in self._stored

    def make_room(self, enough: Callable[[], bool]) -> None:
        """Evicts until there is enough room, or until all that is left is held."""
        if enough():
            return
        known = self.sweep()
        uses = self._uses(known)
        for cached in known:
            if enough():
                return
            if self._evict(cached.digest):
                self._log(f"Evicted {cached.uri} ({_mib(cached.size_bytes)}) from the node's cache.")
                self.evicted.append(cached)
                uses.subtract(cached.contents.keys())
                self._remove([sha256 for sha256 in cached.contents if not uses[sha256]])
            else:
                touch(lease_of(self._places, cached))  # it is in use at this moment
                self.kept.append(cached)

    def sweep(self) -> tuple[Cached, ...]:
        """Removes what killed processes left; gives what is there, the least recently used first."""
        for lock in self._places.locks().iterdir():
            if (descriptor := try_lock(lock)) is not None:
                lock.unlink()
                unlock(descriptor)
        known = all_cached(self._places)
        for digest in self._places.digests() - {each.digest.removeprefix("sha256:") for each in known}:
            self._evict(digest)
        self._remove(self._stored.keys() - self._uses(known).keys())
        return known

    def _uses(self, known: Iterable[Cached]) -> Counter[str]:
        return Counter(self._wanted) + Counter(sha256 for each in known for sha256 in each.contents)

    def _evict(self, digest: str) -> bool:
        """The manifest goes before the contents and after the folder, so a kill leaves nothing uncounted."""
        digest = digest.removeprefix("sha256:")
        lease = self._places.lease(digest)
        descriptor = try_lock(lease)
        if descriptor is None:
            return False
        try:
            folders.drop(self._places, digest)
            self._places.manifest(digest).unlink(missing_ok=True)
            lease.unlink()
        finally:
            unlock(descriptor)
        return True

    def _remove(self, contents: Iterable[str]) -> None:
        for sha256 in list(contents):
            if stored := self._stored.pop(sha256, None):
                for path in stored.paths:
                    Path(path).unlink(missing_ok=True)
                self.set_aside_bytes -= stored.set_aside_bytes
                self.to_come_bytes -= _to_come_bytes(stored)


def _to_come_bytes(stored: Stored) -> int:
    return stored.set_aside_bytes - stored.on_disk_bytes


def _no_room(space: Space, artifact: Artifact, needed_bytes: int, limit_bytes: int) -> str:
    return (
        f"{artifact.uri} needs {_mib(needed_bytes)} more in the node's cache, which may hold "
        f"{_mib(limit_bytes)}; {_mib(space.set_aside_bytes)} are held: {_names(space.kept)}. "
        "End a server of these, or raise LLM_ASSETS_CACHE_GIB; nothing was fetched."
    )


def _no_disk(space: Space, artifact: Artifact, needed_bytes: int) -> str:
    return (
        f"{artifact.uri} needs {_mib(needed_bytes)} more, but the disk of the node's cache at "
        f"{space.root} has {_mib(shutil.disk_usage(space.root).free)} free, of which "
        f"{_mib(space.to_come_bytes)} are set aside, and all that is left in the cache is held: "
        f"{_names(space.kept)}. Free some space or move LLM_ASSETS_CACHE; nothing was fetched."
    )


def _names(kept: list[Cached]) -> str:
    return ", ".join(f"{each.uri} ({_mib(each.size_bytes)})" for each in kept) or "nothing"


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / MIB:.0f} MiB" if size_bytes >= 10 * MIB else f"{size_bytes / MIB:.2f} MiB"
