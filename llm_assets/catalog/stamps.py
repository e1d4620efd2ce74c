"""Did anything in the catalog change? Told by names, sizes and times of its files, without reading one."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

GRAPH_FOLDERS = ("base_models", "models")
"""What the definitions are built from."""
FOLDERS = (*GRAPH_FOLDERS, "tenants", "experiments")
"""What people write; datasets are apart."""

Stamp = tuple[tuple[str, int, int], ...]
"""Path, size in bytes and time of modification in nanoseconds of each file."""


def stamp_of(catalog: Path, folders: tuple[str, ...] = FOLDERS) -> Stamp:
    return tuple(sorted(each for folder in folders for each in _files(catalog / folder)))


def _files(folder: Path) -> Iterator[tuple[str, int, int]]:
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # gone since it was listed
                found = (path := Path(place, name)).stat()
                yield str(path), found.st_size, found.st_mtime_ns
