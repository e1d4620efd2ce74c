"""However many large files go through eight threads: the memory stays what `chunks.py` says."""

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from resources.object_stores.chunks import AHEAD, CHUNK_BYTES, LARGE_AT_ONCE, Reading, Take, Workers, download
from resources.object_stores.retries import Retries
from tests.integration.object_stores.transferring import THREADS

MIB = 1024 * 1024
FILE_BYTES = 16 * MIB
LIBRARIES_MIB = 150
"""What Python and a cloud's library hold before the first transfer, generously."""


def peak_mib(url: str, source: Path, times: int, folder: Path) -> int:
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "tests.integration.object_stores.transferring",
        url,
        source,
        str(times),
        folder,
    ]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def test_twice_the_files_need_no_more_memory(
    url: str, make_file: Callable[[int], Path], tmp_path: Path
) -> None:
    source = make_file(FILE_BYTES)
    few, many = (peak_mib(url, source, times, tmp_path) for times in (THREADS, 2 * THREADS))
    assert many < few + 4 * CHUNK_BYTES // MIB
    assert many < (THREADS + AHEAD) * CHUNK_BYTES // MIB + LIBRARIES_MIB


def test_of_many_large_downloads_only_so_many_hold_pieces_at_once(tmp_path: Path) -> None:
    """The objects are stand-ins that say they are large and give a byte for each chunk."""
    workers, lock = Workers(), threading.Lock()
    beyond: set[int] = set()
    most = [0]

    def fetch(number: int) -> None:
        def stream(start: int, size: int, take: Take) -> int:
            if start:
                with lock:
                    beyond.add(number)
                    most[0] = max(most[0], len(beyond))
                threading.Event().wait(0.01)
            take(b"x")
            return 4 * CHUNK_BYTES

        def moved(_: int) -> None:
            """The last of five chunks: this one holds none any more."""
            with lock:
                told[0] += 1
                if told[0] == 5:
                    beyond.discard(number)

        told = [0]
        reading = Reading(stream=stream, retries=Retries(), doing=f"could not read {number}")
        assert download(reading, tmp_path / str(number), moved, workers).size_bytes == 5

    with ThreadPoolExecutor(4 * LARGE_AT_ONCE) as threads:
        list(threads.map(fetch, range(8 * LARGE_AT_ONCE)))
    workers.close()
    assert most[0] == LARGE_AT_ONCE
