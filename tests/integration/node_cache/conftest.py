"""A store of real files, which writes down every byte that is fetched from it, and caches to fill from it."""

import hashlib
import multiprocessing
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from resources.artifact_store.artifacts import Artifact, ArtifactFile, Line
from resources.node_cache import Download, Held, NodeCache

CHUNK = 4096
LINE = Line(collection="models", tenant="team-a", name="support_bot")
AMPLE = 2**30
FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Artifacts below `folder`. `log` gets a line for every start and for every chunk that arrived."""

    folder: Path
    pause_s: float = 0

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def artifact(self, name: str, files: Mapping[str, bytes]) -> Artifact:
        described = []
        for path, content in files.items():
            place = self.folder / name / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            sha256 = hashlib.sha256(content).hexdigest()
            described.append(ArtifactFile(path=path, size_bytes=len(content), sha256=sha256))
        return Artifact(line=LINE, version=name, files=tuple(described))

    def download(self, artifact: Artifact) -> Download:
        def bring(file: ArtifactFile, part: Path) -> str:
            prefix = part.read_bytes() if part.exists() else b""
            hashed = hashlib.sha256(prefix)
            self._say(f"start {file.sha256} {len(prefix)}")
            with (self.folder / artifact.version / file.path).open("rb") as source, part.open("ab") as target:
                source.seek(len(prefix))
                while chunk := source.read(CHUNK):
                    hashed.update(chunk)
                    target.write(chunk)
                    target.flush()
                    self._say(f"at {file.sha256} {target.tell()}")
                    time.sleep(self.pause_s)
            return hashed.hexdigest()

        return bring

    def starts(self) -> list[str]:
        """The SHA-256 of each file that was asked for, once for each time."""
        return [line.split()[1] for line in self.lines() if line.startswith("start")]

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def _say(self, line: str) -> None:
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(log, f"{line}\n".encode())
        os.close(log)


@dataclass(frozen=True, kw_only=True)
class Node:
    """A cache, the store that it is filled from, and what the cache said."""

    cache: NodeCache
    source: Source
    said: list[str]

    def hold(self, artifact: Artifact) -> AbstractContextManager[Held]:
        return self.cache.hold(artifact, self.source.download(artifact), self.said.append)

    def fetch(self, artifact: Artifact) -> Path:
        with self.hold(artifact) as held:
            return held.folder

    def limited_to(self, limit_bytes: int) -> "Node":
        return Node(
            cache=NodeCache(root=self.cache.root, limit_bytes=limit_bytes),
            source=self.source,
            said=self.said,
        )

    def content(self, artifact: Artifact, path: str) -> Path:
        """The cache's own copy of a file."""
        sha256 = next(file.sha256 for file in artifact.files if file.path == path)
        return self.cache.root / "files" / sha256[0] / sha256

    def uris(self) -> list[str]:
        return [cached.uri for cached in self.cache.cached()]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return a_node(tmp_path)


def a_node(place: Path, *, limit_bytes: int = AMPLE, pause_s: float = 0) -> Node:
    (place / "source").mkdir(exist_ok=True)
    return Node(
        cache=NodeCache(root=place / "cache", limit_bytes=limit_bytes),
        source=Source(folder=place / "source", pause_s=pause_s),
        said=[],
    )


def some_bytes(size_bytes: int, seed: object = 0) -> bytes:
    return random.Random(str(seed)).randbytes(size_bytes)


def read_folder(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if not path.is_dir()
    }


def problem_of(artifact: Artifact, folder: Path) -> str | None:
    """What is not as it was published, read to the last byte."""
    there = {path: hashlib.sha256(content).hexdigest() for path, content in read_folder(folder).items()}
    published = {file.path: file.sha256 for file in artifact.files}
    return None if there == published else f"{artifact.uri}: {there} instead of {published}"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@contextmanager
def running(*targets: Callable[[], None]) -> Iterator[list[BaseProcess]]:
    started: list[BaseProcess] = [FORK.Process(target=target) for target in targets]
    for process in started:
        process.start()
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.join()


def hold_and_compare(node: Node, artifact: Artifact) -> None:
    with node.hold(artifact) as held:
        problem = problem_of(artifact, held.folder)
    if problem:
        raise AssertionError(problem)
