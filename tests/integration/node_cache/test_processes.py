"""Many processes on one cache: each file is fetched once, and a kill at any moment harms nothing."""

import random
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from resources.artifact_store.artifacts import Artifact, ArtifactError
from resources.node_cache.locks import locked, try_lock, unlock
from resources.node_cache.places import Places
from resources.waiting import wait_until
from tests.conftest import ROOT
from tests.integration.node_cache.conftest import (
    CHUNK,
    FORK,
    Node,
    a_node,
    hold_and_compare,
    problem_of,
    running,
    some_bytes,
)


def artifacts_of(node: Node, count: int, *, files: int, chunks: int) -> list[Artifact]:
    """Half of the files of each are also in the next."""
    return [
        node.source.artifact(
            f"v{number}",
            {
                f"{each % 3}/{each}": some_bytes(
                    chunks * CHUNK - each, (number if each % 2 else number // 2, each)
                )
                for each in range(files)
            },
        )
        for number in range(count)
    ]


def test_ten_processes_that_fetch_one_artifact_fetch_each_file_once(tmp_path: Path) -> None:
    node = a_node(tmp_path, pause_s=0.002)
    (artifact,) = artifacts_of(node, 1, files=20, chunks=10)
    with running(*[lambda: hold_and_compare(node, artifact)] * 10) as processes:
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0] * 10
    assert sorted(node.source.starts()) == sorted(file.sha256 for file in artifact.files)
    assert list(Places(root=node.cache.root).parts()) == []


def test_who_waits_for_another_process_says_so(node: Node) -> None:
    artifact = node.source.artifact("v1", {"weights": b"weights"})
    node.fetch(node.source.artifact("v0", {"other": b"makes the folders"}))
    part = Places(root=node.cache.root).part(artifact.files[0])
    with ThreadPoolExecutor() as pool:
        with locked(part, what="it is fetched", kept=True, log=node.said.append):
            waiting = pool.submit(node.fetch, artifact)
            told = f"Waiting for another process: weights of {artifact.uri} is being fetched."
            wait_until(lambda: told in node.said, what="the word of who waits", timeout_s=10)
            assert not waiting.done()
        assert problem_of(artifact, waiting.result()) is None


def test_a_lock_whose_file_goes_with_it_is_never_held_twice(tmp_path: Path) -> None:
    lock, inside, times = tmp_path / "lock", tmp_path / "inside", FORK.SimpleQueue()

    def enter() -> None:
        entered, until = 0, time.monotonic() + 1
        while time.monotonic() < until:
            if (descriptor := try_lock(lock)) is not None:
                inside.mkdir()  # fails where another is inside
                entered += 1
                inside.rmdir()
                lock.unlink()
                unlock(descriptor)
        times.put(entered)

    with running(*[enter] * 4) as processes:
        for process in processes:
            process.join(30)
        assert [process.exitcode for process in processes] == [0] * 4
    assert sum(times.get() for _ in processes) > 100


def test_waiting_for_another_process_has_an_end_and_names_the_file(tmp_path: Path) -> None:
    lock, said = tmp_path / "lock", list[str]()
    with (
        locked(lock, what="it is fetched", log=said.append),
        pytest.raises(ArtifactError, match=r"held .*/lock for over 0\.1 s: it is fetched\. End it"),
        locked(lock, what="it is fetched", log=said.append, timeout_s=0.1),
    ):
        pass
    assert not lock.exists()


def test_killed_at_a_hundred_moments_nothing_is_half_visible_and_nothing_whole_is_fetched_again(
    tmp_path: Path,
) -> None:
    node = a_node(tmp_path, pause_s=0.006)
    artifacts = artifacts_of(node, 40, files=24, chunks=6)  # more than can be fetched in the time
    chance, deadline = random.Random(1), time.monotonic() + 60

    def fetch_all(artifacts: list[Artifact] = artifacts) -> None:
        for artifact in artifacts:
            if not folder_of(node, artifact).is_dir():
                hold_and_compare(node, artifact)

    kills = whole = 0
    while whole < len(artifacts) and time.monotonic() < deadline and (kills < 100 or whole < 3):
        with running(fetch_all) as (process,):
            process.join(chance.uniform(0.005, 0.05))
            kills += process.is_alive()
        whole += nothing_is_half_visible(node, artifacts[whole:])
    assert kills >= 100
    assert 3 <= whole < len(artifacts)
    fetch_all(artifacts[: whole + 1])
    assert nothing_is_half_visible(node, artifacts) == whole + 1
    nothing_was_fetched_twice(node)


def nothing_is_half_visible(node: Node, artifacts: list[Artifact]) -> int:
    visible = [artifact for artifact in artifacts if folder_of(node, artifact).is_dir()]
    assert [problem_of(artifact, folder_of(node, artifact)) for artifact in visible] == [None] * len(visible)
    return len(visible)


def nothing_was_fetched_twice(node: Node) -> None:
    """Each fetch goes on at or after where the one before said that it was."""
    reached: dict[str, int] = {}
    for line in node.source.lines():
        what, sha256, at = line.split()
        assert what == "at" or int(at) >= reached.get(sha256, 0), f"{sha256} was fetched again from {at}"
        reached[sha256] = int(at)


def test_evicting_processes_that_are_killed_leave_a_cache_that_works(tmp_path: Path) -> None:
    node = a_node(tmp_path, limit_bytes=12 * 5 * CHUNK)
    artifacts = artifacts_of(node, 12, files=8, chunks=2)
    chance = random.Random(2)

    def churn() -> None:
        order = random.Random()
        while True:
            hold_and_compare(node, order.choice(artifacts))

    for _ in range(60):
        with running(churn) as (process,):
            process.join(chance.uniform(0.005, 0.06))
        nothing_is_half_visible(node, artifacts)
        assert bytes_on_disk(node) <= node.cache.limit_bytes
    for artifact in artifacts:
        hold_and_compare(node, artifact)
    node.cache.prune(to_bytes=0, log=node.said.append)
    assert [path for path in node.cache.root.rglob("*") if not path.is_dir()] == []


def test_holds_and_evictions_of_six_processes_under_a_small_limit_never_touch_what_is_held(
    tmp_path: Path,
) -> None:
    node = a_node(tmp_path, limit_bytes=40 * CHUNK)
    artifacts = artifacts_of(node, 10, files=6, chunks=2)
    until = time.monotonic() + 4
    outcomes = FORK.SimpleQueue()

    def churn(seed: int) -> None:
        chance, held_times, refused = random.Random(seed), 0, 0
        while time.monotonic() < until:
            try:
                held_times += _hold_a_while(node, chance.choice(artifacts), chance.uniform(0, 0.02))
            except ArtifactError as error:
                if "cannot be evicted" not in str(error):
                    raise
                refused += 1
            if chance.random() < 0.05:
                node.cache.prune(to_bytes=0, log=lambda line: None)
        outcomes.put((held_times, refused))

    most = 0
    with running(*[lambda seed=seed: churn(seed) for seed in range(6)]) as processes:  # type: ignore[misc]
        while any(process.is_alive() for process in processes):
            most = max(most, bytes_on_disk(node))
            node.cache.cached()
            time.sleep(0.01)
        assert [process.exitcode for process in processes] == [0] * 6
    assert node.cache.limit_bytes / 2 < most <= node.cache.limit_bytes
    held_times, refused = (sum(counts) for counts in zip(*(outcomes.get() for _ in range(6)), strict=True))
    assert held_times > 100
    assert refused > 0
    assert list(node.cache.damages()) == []


def _hold_a_while(node: Node, artifact: Artifact, seconds: float) -> int:
    with node.hold(artifact) as held:
        first = problem_of(artifact, held.folder)
        time.sleep(seconds)
        problem = first or problem_of(artifact, held.folder)
    if problem:
        raise AssertionError(problem)
    return 1


def bytes_on_disk(node: Node) -> int:
    """Contents first, so that what becomes whole meanwhile is not counted twice."""
    places, total = Places(root=node.cache.root), 0
    with locked(places.space_lock(), what="it makes room", log=node.said.append):  # nothing is evicted
        for path in (*places.contents(), *places.parts()):
            try:
                total += path.stat().st_size
            except FileNotFoundError:  # a part that became whole since
                continue
    return total


def folder_of(node: Node, artifact: Artifact) -> Path:
    return node.cache.root / "artifacts" / artifact.digest.removeprefix("sha256:")


def test_a_process_in_another_pid_namespace_shares_and_holds_like_any(tmp_path: Path) -> None:
    """Two containers of one node: the same folder at another path, and pids that mean nothing here."""
    node = a_node(tmp_path, limit_bytes=20 * CHUNK, pause_s=0.05)
    artifact = node.source.artifact("v1", {"weights": some_bytes(12 * CHUNK)})
    other = node.source.artifact("v2", {"weights": some_bytes(12 * CHUNK, "other")})
    container = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc"]
    if subprocess.run([*container, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to make namespaces")
    script = (
        f"mkdir {tmp_path}/elsewhere && mount --bind {tmp_path} {tmp_path}/elsewhere && "
        f"exec {sys.executable} -m tests.integration.node_cache.another_container {tmp_path}/elsewhere"
    )
    with subprocess.Popen(
        [*container, "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
    ) as process:
        try:
            wait_until(node.source.starts, what="the fetch of the other container", timeout_s=20)
            node.fetch(artifact)
            assert process.stdout is not None
            assert re.fullmatch(r"pid \d holds", process.stdout.readline().strip())
            with pytest.raises(ArtifactError, match=f"What is held: {artifact.uri}"):
                node.fetch(other)
        finally:
            process.kill()
    assert len(node.source.starts()) == 1
    wait_until(lambda: not node.cache.held(node.cache.cached()[0]), what="the kill", timeout_s=10)
    node.fetch(other)
