"""How many threads there are for many files."""

import threading
import time
from collections.abc import Callable

import pytest

from resources.artifact_store.artifacts import ArtifactError, ArtifactFile
from resources.node_cache.growing_threads import GrowingThreads, Pace

MOST = 16
FAR_S = 0.03  # until a far store answers


class Work:
    """Does something for each file; which files are done, and by how many threads."""

    def __init__(self, do: Callable[[], None]) -> None:
        self.done: list[str] = []
        self.threads: set[str] = set()
        self._do = do

    def __call__(self, file: ArtifactFile) -> None:
        self._do()
        self.threads.add(threading.current_thread().name)
        self.done.append(file.path)


def files(count: int) -> list[ArtifactFile]:
    return [ArtifactFile(path=f"part-{at}", size_bytes=1, sha256=f"{at:064x}") for at in range(count)]


def carried_out(work: Callable[[ArtifactFile], None], count: int, *, first: int = 1) -> None:
    threads = GrowingThreads(work, files(count), first=first, most=MOST)
    try:
        threads.wait()
    finally:
        threads.close()


def test_files_that_are_waited_for_get_all_threads() -> None:
    work = Work(lambda: time.sleep(FAR_S))
    carried_out(work, 200)
    assert sorted(work.done) == sorted(file.path for file in files(200))
    assert len(work.threads) == MOST


def test_a_thread_that_mostly_works_gets_no_other_beside_it() -> None:
    pace = Pace()
    assert not any(pace.waits(0.001, 0.0005) for _ in range(1000))


def test_one_moment_without_the_processor_gets_no_other_thread_either() -> None:
    pace = Pace()
    assert not pace.waits(0.015, 0.0005)
    assert not any(pace.waits(0.001, 0.0008) for _ in range(1000))


def test_each_file_of_a_far_store_gets_one_more_thread() -> None:
    pace = Pace()
    assert all(pace.waits(0.03, 0.001) for _ in range(10))


@pytest.mark.parametrize("first", [1, 4])
def test_what_a_thread_raises_is_raised_and_the_others_end(first: int) -> None:
    def break_off() -> None:
        raise ArtifactError("The test ended it.")

    def wait_or_break(file: ArtifactFile) -> None:
        time.sleep(FAR_S) if file.path != "part-7" else break_off()

    with pytest.raises(ArtifactError, match="The test ended it"):
        carried_out(wait_or_break, 60, first=first)
    assert not [each for each in threading.enumerate() if each.name.startswith("node-cache")]
