"""Publishes a folder again and again, killed at random moments, until it is not killed any more.

    python -m tests.integration.artifact_store.publish_and_be_killed URL FOLDER KILLS SEED

Prints, as JSON, what was seen: how often a publisher was killed at work, whether a half version was ever
seen, and the files that were sent although an earlier try had sent them whole. Publishers are forked, so
that each one costs no imports; a store is opened anew in each.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from resources.artifact_store import store as artifact_store
from resources.artifact_store.artifacts import Artifact, ArtifactError, Line, paths_of
from resources.artifact_store.store import ArtifactStore
from resources.object_stores.objects import Moved, ObjectStore, Transferred

LINE = Line(collection="models", tenant="team-a", name="support_bot")
FINGERPRINT = "sha256:the-same-work"


class Watched:
    """A store that writes down each file whose upload begins."""

    def __init__(self, objects: ObjectStore, record: Path) -> None:
        self._objects, self._record = objects, record

    def __getattr__(self, name: str) -> object:
        return getattr(self._objects, name)

    def upload(self, source: Path, key: str, moved: Moved) -> Transferred:
        with self._record.open("a") as record:
            record.write(f"{key}\n")
        return self._objects.upload(source, key, moved)


class WatchedStore(ArtifactStore):
    """An artifact store that writes its uploads down."""

    record: str

    @property
    def objects(self) -> ObjectStore:
        return Watched(artifact_store._opened(self.url), Path(self.record))  # type: ignore[return-value]


def publish(store: ArtifactStore, folder: Path) -> Artifact:
    copy = folder.with_name(f"{folder.name}-copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    return store.publish(LINE, copy, {"fingerprint": FINGERPRINT})


def in_a_fork(work: Callable[[], object], *, kill_after_s: float | None) -> bool:
    """Was it killed while at work?"""
    child = os.fork()
    if child == 0:
        artifact_store._opened.cache_clear()
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and os.waitstatus_to_exitcode(status):
        raise RuntimeError("a publisher failed by itself")
    return os.WIFSIGNALED(status)


def look(url: str, folder: Path, seen: Path) -> None:
    """Writes what can be seen: paths of files that unfinished versions hold whole, and damaged versions."""
    store = ArtifactStore(url=url)
    whole = {
        stored.key.rpartition("Z-")[2].partition("/")[2]
        for left in store.unfinished(LINE)
        for stored in store.objects.list(left)
        if stored.size_bytes == (folder / stored.key.removeprefix(left)).stat().st_size
    }
    versions, half = 0, []
    for artifact in store.versions(LINE):
        versions += 1
        for file in artifact.files:
            try:
                store.read(artifact, file.path)
            except ArtifactError as error:
                half.append(str(error))
        if [file.path for file in artifact.files] != paths_of(folder):
            half.append(f"{artifact.uri} lacks files")
    seen.write_text(json.dumps({"whole": sorted(whole), "versions": versions, "half": half}))


def main() -> None:
    url, folder, kills = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    chance = random.Random(int(sys.argv[4]))
    record, seen = folder.with_name("record"), folder.with_name("seen")
    store = WatchedStore(url=url, record=str(record))
    report: dict[str, Any] = {
        "killed_at_work": 0,
        "half": [],
        "sent_twice": Counter(),
        "finished_while_killed": 0,
    }
    full_s = _seconds_of_one(url, folder)
    whole: set[str] = set()
    for _ in range(kills):
        record.write_text("")
        killed = in_a_fork(lambda: publish(store, folder), kill_after_s=chance.uniform(0, full_s * 1.1))
        _note(report, record, whole)
        in_a_fork(lambda: look(url, folder, seen), kill_after_s=None)
        view = json.loads(seen.read_text())
        report["killed_at_work"] += killed
        report["half"] += view["half"]
        whole |= set(view["whole"])
        if view["versions"]:
            report["finished_while_killed"] += 1
            in_a_fork(lambda: _start_again(url), kill_after_s=None)
            whole.clear()
    record.write_text("")
    in_a_fork(lambda: publish(store, folder), kill_after_s=None)
    _note(report, record, whole)
    in_a_fork(lambda: look(url, folder, seen), kill_after_s=None)
    report["versions"] = json.loads(seen.read_text())["versions"]
    print(json.dumps(report))


def _note(report: dict[str, object], record: Path, whole: set[str]) -> None:
    sent = {key.rpartition("Z-")[2].partition("/")[2] for key in record.read_text().splitlines()}
    report["sent_twice"].update(sent & whole)  # type: ignore[attr-defined]


def _seconds_of_one(url: str, folder: Path) -> float:
    started = time.monotonic()
    in_a_fork(lambda: publish(ArtifactStore(url=url), folder), kill_after_s=None)
    seconds = time.monotonic() - started
    in_a_fork(lambda: _start_again(url), kill_after_s=None)
    return seconds


def _start_again(url: str) -> None:
    store = ArtifactStore(url=url)
    for stored in list(store.objects.list(f"{LINE}/")):
        store.objects.delete(stored.key)


if __name__ == "__main__":
    main()
