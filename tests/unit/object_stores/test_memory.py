"""However many large files go through eight threads: the memory stays what `pieces.py` says."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from resources.object_stores.pieces import AHEAD, PIECE_BYTES
from tests.unit.object_stores.transferring import THREADS

MIB = 1024 * 1024
FILE_BYTES = 16 * MIB
LIBRARIES_MIB = 150
"""What Python and a cloud's library hold before the first transfer, generously."""


def peak_mib(url: str, source: Path, times: int, folder: Path) -> int:
    command = [sys.executable, "-m", "tests.unit.object_stores.transferring", url, source, str(times), folder]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def test_twice_the_files_need_no_more_memory(
    url: str, make_file: Callable[[int], Path], tmp_path: Path
) -> None:
    source = make_file(FILE_BYTES)
    few, many = (peak_mib(url, source, times, tmp_path) for times in (THREADS, 2 * THREADS))
    assert many < few + 4 * PIECE_BYTES // MIB
    assert many < (THREADS + AHEAD) * PIECE_BYTES // MIB + LIBRARIES_MIB
