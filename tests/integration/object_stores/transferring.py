"""Sends one file many times from eight threads, fetches all of it, and prints its own peak memory in MiB.

A process of its own: `python -m tests.integration.object_stores.transferring <url> <file> <times> <folder>`.
"""

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from resources.object_stores.opening import open_object_store

THREADS = 8


def transfer(url: str, source: Path, times: int, folder: Path) -> None:
    store = open_object_store(url)
    keys = [f"{times}/{number}" for number in range(times)]
    with ThreadPoolExecutor(THREADS) as threads:
        sent = list(threads.map(lambda key: store.upload(source, key, lambda _: None), keys))
        targets = [folder / f"{number % THREADS}" for number in range(times)]
        for first in range(0, times, THREADS):
            batch = slice(first, first + THREADS)
            for target in targets[batch]:
                target.unlink(missing_ok=True)
            back = threads.map(
                lambda key, target: store.download(key, target, lambda _: None), keys[batch], targets[batch]
            )
            assert list(back) == sent[batch]


def peak_mib() -> int:
    """Not ru_maxrss: that of a started process begins with its parent's."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) // 1024


if __name__ == "__main__":
    transfer(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    print(peak_mib())
