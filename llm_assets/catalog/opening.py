"""Opens and lists a catalog's files.

What tenants write themselves (experiments, datasets) is reached without following a symbolic link, which
could lead to another tenant's. The rest is the operator's, whose links are followed: Kubernetes makes links
of the files of a ConfigMap.
"""

import os
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from resources.beneath import opened

WRITTEN_BY_TENANTS = ("datasets", "experiments")


class Listed(NamedTuple):
    """What lies in a folder. `is_link` is told of what tenants write alone."""

    name: str
    is_folder: bool
    is_link: bool = False


def open_file(catalog: Path, file: str) -> BufferedReader:
    """Raises:
    NotFollowedError: It lies among what tenants write and is a link, lies behind one, or is no file.
    OSError: It cannot be read.
    """
    root, *parts = file.split("/")
    if root not in WRITTEN_BY_TENANTS:
        return (catalog / file).open("rb")
    with opened(catalog / root) as top:
        return top.open(*parts)


def listed(catalog: Path, folder: str) -> list[Listed]:
    """What lies in a folder of the catalog, by name. Raises as `open_file`."""
    root, *parts = folder.split("/")
    if root in WRITTEN_BY_TENANTS:
        with opened(catalog / root, *parts) as top:
            return [Listed(each.path.name, each.is_folder, each.is_link) for each in top.entries()]
    with os.scandir(catalog / folder) as entries:
        return sorted(Listed(each.name, each.is_dir()) for each in entries)
