"""The size limit: bytes are set aside before they are fetched, and the least recently used makes room.

All of it happens under one lock, so that what several processes fetch at once fits together. A leased
artifact is never evicted, and neither is a content that an artifact needs which is there or coming.
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from resources.artifact_store.artifacts import Artifact, ArtifactError
from resources.node_cache import folders
from resources.node_cache.locks import locked, try_lock, unlock
from resources.node_cache.places import Places
from resources.node_cache.survey import (
    Cached,
    all_cached,
    all_stored,
    contents_of,
    find,
    held,
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
        space.make_room(artifact, needed_bytes, limit_bytes)
        for file in artifact.files:
            if not space.has(file.sha256):
                os.close(os.open(places.part(file), os.O_WRONLY | os.O_CREAT, 0o600))
        write_manifest(places, artifact)


def prune(places: Places, *, to_bytes: int, log: Log) -> tuple[Cached, ...]:
    """Evicts by least use until at most `to_bytes` are left; gives what was evicted."""
    with locked(places.space_lock(), what=BUSY, log=log):
        space = Space(places, {}, log)
        return space.evict(space.sweep(), enough=lambda: space.set_aside_bytes <= to_bytes)


class Space:
    """What is set aside, as seen under the lock of the space; nobody else changes that meanwhile."""

    def __init__(self, places: Places, wanted: Iterable[str], log: Log) -> None:
        self._places, self._wanted, self._log = places, tuple(wanted), log
        self._stored = all_stored(places)
        self.set_aside_bytes = sum(each.set_aside_bytes for each in self._stored.values())
        self.to_come_bytes = sum(each.to_come_bytes for each in self._stored.values())

    def has(self, sha256: str) -> bool:
        return sha256 in self._stored

    def make_room(self, artifact: Artifact, needed_bytes: int, limit_bytes: int) -> None:
        """Evicts until there is room for so many bytes more.

        Raises:
            ArtifactError: All that nobody holds is not enough; then nothing is evicted.
        """

        def enough() -> bool:
            return self._fits(needed_bytes, limit_bytes)

        while not enough():
            known = self.sweep()
            kept = [cached for cached in known if held(self._places, cached)]
            if reason := self._refusal(kept, needed_bytes, limit_bytes):
                names = ", ".join(f"{each.uri} ({_mib(each.size_bytes)})" for each in kept) or "nothing"
                raise ArtifactError(
                    f"{artifact.uri} needs {_mib(needed_bytes)} more in the node's cache at "
                    f"{self._places.root}, {reason}; nothing was fetched. What is held: {names}."
                )
            self.evict(known, enough=enough)

    def evict(self, known: Iterable[Cached], *, enough: Callable[[], bool]) -> tuple[Cached, ...]:
        """In the given order, until there is enough or the rest is held; gives what was evicted."""
        uses, evicted = self._uses(known), []
        for cached in known:
            if enough():
                break
            if not self._evict(cached.digest):
                touch(lease_of(self._places, cached))  # it is in use at this moment
                continue
            self._log(f"Evicted {cached.uri} ({_mib(cached.size_bytes)}) from the node's cache.")
            evicted.append(cached)
            uses.subtract(cached.contents.keys())
            self._remove([sha256 for sha256 in cached.contents if not uses[sha256]])
        return tuple(evicted)

    def _fits(self, needed_bytes: int, limit_bytes: int) -> bool:
        free_bytes = shutil.disk_usage(self._places.root).free
        return (
            self.set_aside_bytes + needed_bytes <= limit_bytes
            and self.to_come_bytes + needed_bytes <= free_bytes
        )

    def _refusal(self, kept: Iterable[Cached], needed_bytes: int, limit_bytes: int) -> str | None:
        """Why there would be too little room even if only `kept` were left; None when there is enough."""
        uses = self._uses(kept)
        left = [stored for sha256, stored in self._stored.items() if sha256 in uses]
        set_aside_bytes = sum(each.set_aside_bytes for each in left)
        if set_aside_bytes + needed_bytes > limit_bytes:
            return (
                f"which may hold {_mib(limit_bytes)} and of which {_mib(set_aside_bytes)} cannot be evicted. "
                "End a server of what is held, or raise LLM_ASSETS_CACHE_GIB"
            )
        evictable_bytes = sum(each.on_disk_bytes for each in self._stored.values()) - sum(
            each.on_disk_bytes for each in left
        )
        free_bytes = shutil.disk_usage(self._places.root).free + evictable_bytes
        to_come_bytes = sum(each.to_come_bytes for each in left)
        if to_come_bytes + needed_bytes > free_bytes:
            return (
                f"but even with all evicted that nobody holds its disk would have {_mib(free_bytes)} free, "
                f"{_mib(to_come_bytes)} of them set aside. Free some space, or move LLM_ASSETS_CACHE"
            )
        return None

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
            folders.drop(self._places.linked(digest))
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
                self.to_come_bytes -= stored.to_come_bytes


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / MIB:.0f} MiB" if size_bytes >= 10 * MIB else f"{size_bytes / MIB:.2f} MiB"
