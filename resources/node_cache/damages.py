"""Reads the whole cache and says what is wrong, while others go on using it."""

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from resources.artifact_store.artifacts import ArtifactFile
from resources.node_cache import folders
from resources.node_cache.files import damage
from resources.node_cache.places import Places
from resources.node_cache.survey import Cached, all_cached, find

AT_ONCE = 8


def damages(places: Places) -> Iterator[str]:
    """One line for each content, manifest and link that is not as it should be."""
    yield from _of_contents(places)
    for digest in sorted(places.digests()):
        cached, folder = find(places, digest), places.folder(digest)
        if cached:
            yield from (
                f"{cached.uri}: {problem} ({folder})." for problem in _of_folder(places, digest, cached)
            )
        elif folder.is_dir():
            yield f"{folder} has no manifest, or a damaged one, at {places.manifest(digest)}."


def _of_contents(places: Places) -> Iterator[str]:
    users: defaultdict[str, list[str]] = defaultdict(list)
    for cached in all_cached(places):
        for file in cached.files:
            users[file.sha256].append(f"{file.path} of {cached.uri}")
    contents = [Path(entry.path) for entry in places.contents()]
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        for content, problem in zip(contents, pool.map(_of_content, contents), strict=True):
            if problem and content.exists():  # else it was evicted meanwhile
                used = ", ".join(users[content.name]) or "of no artifact"
                yield f"{problem}. It is {used} ({content})."


def _of_content(content: Path) -> str | None:
    """Only its hash is compared: the size is whatever it has."""
    try:
        size_bytes = content.stat().st_size
    except FileNotFoundError:
        return None
    return damage(content, ArtifactFile(path=content.name, size_bytes=size_bytes, sha256=content.name))


def _of_folder(places: Places, digest: str, cached: Cached) -> list[str]:
    try:
        return list(folders.differences(places.linked(digest, cached.files)).values())
    except FileNotFoundError:
        return []  # not whole yet, or evicted meanwhile
