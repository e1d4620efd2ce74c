"""What the cache has: its artifacts by their manifests, its contents by the names of their files.

Nothing here takes a lock or keeps a count of its own, so no crash can leave a count that is wrong.
"""

import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from resources.artifact_store.artifacts import Artifact, ArtifactError, ArtifactFile, digest_of
from resources.node_cache.locks import try_lock
from resources.node_cache.places import Places


@dataclass(frozen=True, kw_only=True)
class Cached:
    """An artifact that the cache has or is getting. `uri` is the address it first came from."""

    digest: str
    uri: str
    files: tuple[ArtifactFile, ...]

    @property
    def contents(self) -> dict[str, int]:
        """Size in bytes by SHA-256: two files with the same bytes are one content."""
        return contents_of(self.files)

    @property
    def size_bytes(self) -> int:
        """What it takes alone; contents that other artifacts share stand once on the disk."""
        return sum(self.contents.values())


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A content, whole or on its way: what is set aside for it, and what it takes by now."""

    paths: tuple[str, ...]
    set_aside_bytes: int
    on_disk_bytes: int

    @property
    def to_come_bytes(self) -> int:
        return self.set_aside_bytes - self.on_disk_bytes


def contents_of(files: Iterable[ArtifactFile]) -> dict[str, int]:
    return {file.sha256: file.size_bytes for file in files}


def hex_digest(artifact: Artifact) -> str:
    return artifact.digest.removeprefix("sha256:")


def write_manifest(places: Places, artifact: Artifact) -> None:
    """Under the lock of the space."""
    rows = [[file.path, file.size_bytes, file.sha256] for file in artifact.files]
    draft = places.manifest_draft()
    draft.write_text(json.dumps({"uri": artifact.uri, "files": rows}))
    draft.replace(places.manifest(hex_digest(artifact)))


def find(places: Places, digest: str) -> Cached | None:
    """The artifact of that digest, unless the cache has none or its manifest is damaged."""
    try:
        content = json.loads(places.manifest(digest).read_bytes())
        rows = [ArtifactFile(path=row[0], size_bytes=row[1], sha256=row[2]) for row in content["files"]]
        cached = Cached(digest=f"sha256:{digest}", uri=str(content["uri"]), files=tuple(rows))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, ArtifactError):
        return None  # `llm-assets cache verify` names it; a digest that fits cannot be made of other files
    return cached if digest_of(cached.files) == digest else None


def all_cached(places: Places) -> tuple[Cached, ...]:
    """Every artifact, the least recently used first."""
    found = (find(places, digest) for digest in places.digests())
    return tuple(sorted((each for each in found if each), key=lambda each: last_used(places, each)))


def last_used(places: Places, cached: Cached) -> float:
    """Seconds since 1970; 0 where nobody ever held it."""
    try:
        return lease_of(places, cached).stat().st_mtime_ns / 1e9
    except FileNotFoundError:
        return 0


def touch(lease: Path | int) -> None:
    """Marks it as used now, finer than the kernel's own clock for files, whose ticks are milliseconds."""
    now = time.time_ns()
    os.utime(lease, ns=(now, now))


def lease_of(places: Places, cached: Cached) -> Path:
    return places.lease(cached.digest.removeprefix("sha256:"))


def held(places: Places, cached: Cached) -> bool:
    lease = lease_of(places, cached)
    if not lease.exists():
        return False
    descriptor = try_lock(lease)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None


def all_stored(places: Places) -> dict[str, Stored]:
    """By SHA-256. What becomes whole meanwhile is not missed: those on their way are looked at first."""
    found: dict[str, Stored] = {}
    for part in places.parts():
        sha256, set_aside, _ = part.name.split(".")
        found[sha256] = Stored(
            paths=(part.path,), set_aside_bytes=int(set_aside), on_disk_bytes=_size_bytes(part) or 0
        )
    for content in places.contents():
        size_bytes = _size_bytes(content)
        if size_bytes is not None:
            known = found[content.name].paths if content.name in found else ()
            found[content.name] = Stored(
                paths=(*known, content.path), set_aside_bytes=size_bytes, on_disk_bytes=size_bytes
            )
    return found


def _size_bytes(entry: os.DirEntry[str]) -> int | None:
    """None where it is gone by now."""
    try:
        return entry.stat().st_size
    except FileNotFoundError:
        return None
