"""The size limit: the least recently used goes, what is held or served stays, and no room is said clearly."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resources.artifact_store.artifacts import Artifact, ArtifactError, ArtifactFile
from resources.node_cache import Held
from resources.processes.local_processes import LocalProcesses
from resources.waiting import wait_until
from tests.integration.node_cache.conftest import AMPLE, Node, a_node, problem_of, some_bytes

SIZE = 100_000
ENV = {"PATH": os.environ["PATH"]}


def models(node: Node, count: int) -> list[Artifact]:
    return [
        node.source.artifact(f"v{number}", {"weights": some_bytes(SIZE, number), "config": b"shared"})
        for number in range(count)
    ]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[LocalProcesses]:
    processes = LocalProcesses(tmp_path / "processes")
    yield processes
    for record in processes.all():
        processes.stop(record.name)


def serve(processes: LocalProcesses, held: Held, *command: str) -> int:
    """Starts a server on a held artifact; its pid."""
    log = processes.folder.parent / "log"
    record = processes.start("it", command=command, env=ENV, log=log, attributes={}, holds=(held.lease,))
    return record.pid


def test_the_least_recently_used_makes_room(node: Node) -> None:
    node = node.limited_to(3 * SIZE + 100)
    first, second, third, fourth = models(node, 4)
    for artifact in (first, second, third, first):
        node.fetch(artifact)
    folder = node.fetch(fourth)
    assert node.uris() == [third.uri, first.uri, fourth.uri]
    assert f"Evicted {second.uri} (0.10 MiB)" in str(node.said)
    assert problem_of(fourth, folder) is None
    assert node.cache.used_bytes() == 3 * SIZE + len(b"shared")
    starts = len(node.source.starts())
    node.fetch(second)
    assert len(node.source.starts()) == starts + 1  # the shared file was still there


def test_what_is_held_is_not_evicted_and_the_error_says_what_holds_the_room(node: Node) -> None:
    node = node.limited_to(2 * SIZE + 100)
    first, second, third = models(node, 3)
    with node.hold(first) as held, node.hold(second):
        starts = node.source.starts()
        with pytest.raises(
            ArtifactError,
            match=rf"{third.uri} needs 0\.10 MiB more .* 0\.19 MiB cannot be evicted\. End a server .*"
            rf"raise LLM_ASSETS_CACHE_GIB; nothing was fetched\. What is held: {first.uri} .*{second.uri} ",
        ):
            node.fetch(third)
        assert node.source.starts() == starts
        assert problem_of(first, held.folder) is None
    node.fetch(third)


def test_where_evicting_all_that_may_go_would_not_be_enough_nothing_is_evicted(node: Node) -> None:
    node = node.limited_to(3 * SIZE + 100)
    held, free, _ = models(node, 3)
    large = node.source.artifact("large", {"weights": some_bytes(5 * SIZE // 2)})
    node.fetch(free)
    with node.hold(held):
        with pytest.raises(ArtifactError, match=r"0\.10 MiB cannot be evicted"):
            node.fetch(large)
        assert node.uris() == [free.uri, held.uri]
    node.fetch(large)


def test_an_artifact_that_is_larger_than_the_limit_is_refused_and_evicts_nothing(node: Node) -> None:
    first, second = models(node, 2)
    node.fetch(first)
    with pytest.raises(
        ArtifactError,
        match=r"has 0\.10 MiB, more than the node's cache at .* may hold \(0\.10 MiB\)\. Raise",
    ):
        node.limited_to(SIZE).fetch(second)
    assert node.uris() == [first.uri]


def test_a_server_keeps_its_artifact_until_it_is_killed(node: Node, processes: LocalProcesses) -> None:
    node = node.limited_to(2 * SIZE)
    first, second = models(node, 2)
    with node.hold(first) as held:
        pid = serve(processes, held, "sleep", "600")
    assert [node.cache.held(cached) for cached in node.cache.cached()] == [True]
    with pytest.raises(ArtifactError, match=f"What is held: {first.uri}"):
        node.fetch(second)
    assert node.cache.prune(to_bytes=0, log=node.said.append) == ()
    assert problem_of(first, held.folder) is None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not node.cache.held(node.cache.cached()[0]), what="the kill", timeout_s=10)
    node.fetch(second)
    assert node.uris() == [second.uri]


def test_a_child_of_a_killed_server_keeps_the_artifact(node: Node, processes: LocalProcesses) -> None:
    (first,) = models(node, 1)
    with node.hold(first) as held:
        pid = serve(processes, held, "sh", "-c", "sleep 600 & echo up; exec sleep 600")
    log = processes.folder.parent / "log"
    wait_until(lambda: "up" in log.read_text(), what="the child", timeout_s=10)
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.1)
    assert node.cache.prune(to_bytes=0, log=node.said.append) == ()
    processes.stop("it")
    assert [cached.uri for cached in node.cache.prune(to_bytes=0, log=node.said.append)] == [first.uri]


def test_a_server_counts_as_used_when_it_was_last_seen_alive(node: Node, processes: LocalProcesses) -> None:
    node = node.limited_to(3 * SIZE + 100)
    served, second, third, fourth, fifth = models(node, 5)
    with node.hold(served) as held:
        pid = serve(processes, held, "sleep", "600")
    for artifact in (second, third, fourth):
        node.fetch(artifact)  # the fourth evicts the second, and sees that the first is in use
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(node.cache.held, node.cache.cached())), what="the kill", timeout_s=10)
    node.fetch(fifth)
    assert node.uris() == [served.uri, fourth.uri, fifth.uri]


def test_a_fetch_that_was_given_up_is_evicted_too(node: Node) -> None:
    node = node.limited_to(2 * SIZE)
    first, second = models(node, 2)

    def failing(file: ArtifactFile, part: Path) -> str:
        part.write_bytes(b"half")
        raise ArtifactError("the store is gone")

    with pytest.raises(ArtifactError, match="is gone"), node.cache.hold(first, failing, node.said.append):
        pass
    assert node.cache.used_bytes() == SIZE + len(b"shared")  # set aside, so that it can go on
    node.fetch(second)
    assert node.uris() == [second.uri]
    assert node.cache.used_bytes() == SIZE + len(b"shared")


def test_pruning_to_nothing_leaves_no_file(node: Node) -> None:
    for artifact in models(node, 3):
        node.fetch(artifact)
    (node.cache.root / "locks" / "file-left").touch()
    (node.cache.root / "artifacts" / f".{'0' * 64}").mkdir()
    (node.cache.root / "files" / "ab").mkdir(exist_ok=True)
    (node.cache.root / "files" / "ab" / ("ab" * 32)).write_bytes(b"of no artifact")
    assert node.cache.prune(to_bytes=AMPLE, log=node.said.append) == ()
    assert not list((node.cache.root / "artifacts").glob(".*"))
    assert len(node.cache.prune(to_bytes=0, log=node.said.append)) == 3
    assert [path for path in node.cache.root.rglob("*") if not path.is_dir()] == []
    assert list((node.cache.root / "artifacts").iterdir()) == []


def test_a_disk_with_too_little_room_is_said_before_anything_is_fetched(node: Node, small_disk: Path) -> None:
    small = a_node(small_disk)
    source = node.source
    (large,) = [source.artifact("large", {"weights": some_bytes(2 * 2**20)})]
    with (
        pytest.raises(
            ArtifactError,
            match=r"large needs 2\.00 MiB more .* disk would have 1\.00 MiB free.*nothing was fetched",
        ),
        small.cache.hold(large, source.download(large), small.said.append),
    ):
        pass
    assert source.starts() == []


def test_a_full_disk_evicts_what_nobody_uses(node: Node, small_disk: Path) -> None:
    small, source = a_node(small_disk), node.source
    for number in range(4):
        artifact = source.artifact(f"v{number}", {"weights": some_bytes(400_000, number)})
        with small.cache.hold(artifact, source.download(artifact), small.said.append) as held:
            assert problem_of(artifact, held.folder) is None
    assert len(small.uris()) == 2


def test_a_disk_that_another_fills_meanwhile_is_said_and_the_fetch_goes_on_later(
    node: Node, small_disk: Path
) -> None:
    small, source = a_node(small_disk), node.source
    artifact = source.artifact("v1", {"weights": some_bytes(600_000)})
    filler = small_disk / "filler"

    def filling(file: ArtifactFile, part: Path) -> str:
        filler.write_bytes(b"x" * 700_000)
        return source.download(artifact)(file, part)

    with (
        pytest.raises(ArtifactError, match=r"disk of the node's cache at .* is full \(0 MiB free\)"),
        small.cache.hold(artifact, filling, small.said.append),
    ):
        pass
    filler.unlink()
    with small.cache.hold(artifact, source.download(artifact), small.said.append) as held:
        assert problem_of(artifact, held.folder) is None
    starts = [int(line.split()[2]) for line in source.lines() if line.startswith("start")]
    assert starts[0] == 0 < starts[1]


FEW = st.integers(0, 4)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["hold", "fetch", "damage", "forget", "put", "unlist"]), FEW),
        st.tuples(st.just("release"), FEW),
        st.tuples(st.just("prune"), st.integers(0, 3 * SIZE // 10)),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_whatever_happens_a_held_folder_is_right_and_the_limit_is_kept(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    limit_bytes = 3 * SIZE // 10
    node = a_node(tmp_path_factory.mktemp("node"), limit_bytes=limit_bytes)
    shared = some_bytes(SIZE // 20)
    artifacts = [
        node.source.artifact(f"v{number}", {"weights": some_bytes(SIZE // 10, number), "shared": shared})
        for number in range(5)
    ]
    held: dict[int, ExitStack] = {}
    for step, number in steps:
        if step in ("hold", "fetch") and number not in held:
            held[number] = ExitStack()
            try:
                folder = held[number].enter_context(node.hold(artifacts[number])).folder
            except ArtifactError as error:
                assert "cannot be evicted" in str(error)  # noqa: PT017
                assert len(held) == 3
                held.pop(number)
                continue
            assert problem_of(artifacts[number], folder) is None
            if step == "fetch":
                held.pop(number).close()
        elif step == "release" and number in held:
            held.pop(number).close()
        elif step == "prune":
            node.cache.prune(to_bytes=number, log=node.said.append)
        else:
            _harm(node, step, artifacts[number % 5], is_held=number in held)
        assert _on_disk(node) <= limit_bytes
        for each in held:
            assert problem_of(artifacts[each], _folder(node, artifacts[each])) is None
    for stack in held.values():
        stack.close()


def _harm(node: Node, step: str, artifact: Artifact, *, is_held: bool) -> None:
    """What may happen to a cache from outside while nobody holds the artifact."""
    folder, digest = _folder(node, artifact), artifact.digest.removeprefix("sha256:")
    if is_held or not folder.is_dir():
        return
    if step == "damage":
        node.content(artifact, "weights").chmod(0o644)
        node.content(artifact, "weights").write_bytes(b"other")
    elif step == "forget":
        (folder / "weights").unlink()
    elif step == "put":
        (folder / "foreign").write_bytes(b"")
    elif step == "unlist":
        (node.cache.root / "manifests" / digest).write_text("{")


def _folder(node: Node, artifact: Artifact) -> Path:
    return node.cache.root / "artifacts" / artifact.digest.removeprefix("sha256:")


def _on_disk(node: Node) -> int:
    kept = (*(node.cache.root / "files").glob("*/*"), *(node.cache.root / "coming").glob("*"))
    return sum(path.stat().st_size for path in kept)
