"""A node's cache of verified artifacts: one copy of each content, whole or not there, never evicted in use.

Safe between processes of several containers that share the folder and run as one user. Every look reads
every byte, which also brings the files into the page cache for whoever loads them next. Not covered: a
folder on NFS, and somebody who alters a file while it is held.
"""

import errno
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from resources.artifact_store.artifacts import Artifact, ArtifactError
from resources.node_cache import folders, space, survey
from resources.node_cache.damages import AT_ONCE, damages
from resources.node_cache.files import Download, Fetch
from resources.node_cache.growing_threads import GrowingThreads
from resources.node_cache.held import Held
from resources.node_cache.locks import locked
from resources.node_cache.places import Places
from resources.node_cache.survey import Cached

MOST_AT_ONCE = 32
"""A far store answers for each small file after 30 ms or more. What they hold is bounded by the store."""
LARGE_BYTES = 1024 * 1024
"""From here on reading, hashing and writing leave the interpreter to others, so a thread for each pays."""
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class NodeCache:
    """The cache in the folder `root`, of at most `limit_bytes`."""

    root: Path
    limit_bytes: int

    @contextmanager
    def hold(self, artifact: Artifact, download: Download, log: Callable[[str], None]) -> Iterator[Held]:
        """The artifact's verified folder, read-only; it is not evicted while it is held.

        What is missing or damaged is fetched, each file by one process. An error or an interrupt is
        raised once the downloads under way have ended.

        Raises:
            ArtifactError: There is no room, the disk is full, or the store gives other bytes than published.
        """
        places = Places(root=self.root)
        digest = survey.hex_digest(artifact)
        with _disk_full_named(self.root, artifact):
            places.make()
        what = f"{artifact.uri} is being evicted"
        with locked(places.lease(digest), what=what, shared=True, log=log) as lease:
            survey.touch(lease)
            with _disk_full_named(self.root, artifact):
                space.set_aside(places, artifact, limit_bytes=self.limit_bytes, log=log)
                _bring(places, artifact, download, log)
                linked = places.linked(digest, artifact.files, what=artifact.uri)
                folders.show(linked, log)
            try:
                yield Held(folder=linked.folder, lease=places.lease(digest))
            finally:
                survey.touch(lease)

    def cached(self) -> tuple[Cached, ...]:
        """Every artifact, the least recently used first; some may still be coming."""
        return survey.all_cached(Places(root=self.root))

    def last_used(self, cached: Cached) -> float:
        """Seconds since 1970."""
        return survey.last_used(Places(root=self.root), cached)

    def held(self, cached: Cached) -> bool:
        return survey.held(Places(root=self.root), cached)

    def whole(self, digest: str) -> bool:
        return Places(root=self.root).folder(digest.removeprefix("sha256:")).is_dir()

    def used_bytes(self) -> int:
        """What all contents take together, and what is set aside for those that come."""
        return sum(each.set_aside_bytes for each in survey.all_stored(Places(root=self.root)).values())

    def prune(self, *, to_bytes: int, log: Callable[[str], None]) -> tuple[Cached, ...]:
        """Evicts by least use until at most `to_bytes` are used or the rest is held; gives what went."""
        places = Places(root=self.root)
        places.make()
        return space.prune(places, to_bytes=to_bytes, log=log)

    def damages(self) -> Iterator[str]:
        """Reads everything and says what is wrong, file by file. The next hold of an artifact mends it."""
        return damages(Places(root=self.root))


def _bring(places: Places, artifact: Artifact, download: Download, log: Callable[[str], None]) -> None:
    """In an order of chance, so that processes that fetch the same artifact share the work."""
    files = list({file.sha256: file for file in artifact.files}.values())
    missing = [file for file in files if not places.content(file).exists()]
    missing_bytes = sum(file.size_bytes for file in missing)
    log(
        f"{artifact.uri}: {len(missing)} of {len(files)} files ({missing_bytes / MIB:.1f} of "
        f"{artifact.size_bytes / MIB:.1f} MiB) are to be fetched, the rest is read and compared."
    )
    random.shuffle(files)
    fetch = Fetch(places=places, uri=artifact.uri, download=download, log=log, stop=threading.Event())
    large = sum(file.size_bytes >= LARGE_BYTES for file in files)
    threads = GrowingThreads(fetch.bring, files, first=max(1, min(large, AT_ONCE)), most=MOST_AT_ONCE)
    try:
        threads.wait()
    finally:
        fetch.stop.set()
        threads.close()


@contextmanager
def _disk_full_named(root: Path, artifact: Artifact) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(root).free // MIB if root.is_dir() else 0
        raise ArtifactError(
            f"The disk of the node's cache at {root} is full ({free} MiB free); {artifact.uri} could not be "
            "fetched. Free some space, `llm-assets cache prune`, or move LLM_ASSETS_CACHE; then try again: "
            "what was fetched is kept."
        ) from error
