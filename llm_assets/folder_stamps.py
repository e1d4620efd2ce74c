"""A folder's stamp: has anything in it changed since? A hash of names, sizes and times; nothing is read.

An asset records the stamp of what it took in, and a sensor compares it with the folder as it is.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from llm_assets.datasets.landing_zone import Folder, source_files
from resources.beneath import NotFollowedError, OpenedFolder, opened

STAMP_LENGTH = 12

# Metadata keys, on the newest materialization of a dataset and of an adapter.
DATASET_STAMP = "llm/landing_zone_stamp"
EXPERIMENT_STAMP = "llm/experiments_stamp"

GONE = "none"  # the stamp of a folder without files

Files = Sequence[
    tuple[str, int, int]
]  # path within the folder, size in bytes, time of modification in nanoseconds


def stamp_of(files: Files) -> str:
    """`GONE` where there is no file."""
    return hashlib.sha256(repr(sorted(files)).encode()).hexdigest()[:STAMP_LENGTH] if files else GONE


def files_of_dataset(landing_zone: Folder) -> Files:
    return [
        (str(file.path.relative_to(landing_zone.path)), file.size_bytes, file.modified_ns)
        for file in source_files(landing_zone)
    ]


def files_of_experiments(folder: OpenedFolder) -> Files:
    return [
        (file.name, status.st_size, status.st_mtime_ns)
        for file, status in folder.entries()
        if file.suffix == ".yaml" and not file.name.startswith(".")
    ]


def stamp_of_experiments(root: Path, tenant: str, model: str) -> str:
    """`GONE` where the tenant has no folder for the model, or a link in its place."""
    try:
        with opened(root, tenant, model) as folder:
            return stamp_of(files_of_experiments(folder))
    except (FileNotFoundError, NotADirectoryError, NotFollowedError):
        return GONE


def stamps(root: Path, look_into: Callable[[OpenedFolder], Files]) -> dict[str, str]:
    """`{"<tenant>/<model>": stamp}` of every folder two levels below `root` that holds watched files.

    Links are not followed; a folder that goes, or becomes a link, while it is looked into has no files.
    """
    found = {}
    if not root.is_dir():
        return {}
    with opened(root) as top:
        for tenant in _folders(top):
            with (
                suppress(FileNotFoundError, NotADirectoryError, NotFollowedError),
                top.folder(tenant) as folder,
            ):
                for model in _folders(folder):
                    with suppress(FileNotFoundError, NotADirectoryError, NotFollowedError):
                        with folder.folder(model) as line:
                            stamp = stamp_of(look_into(line))
                        if stamp != GONE:
                            found[f"{tenant}/{model}"] = stamp
    return found


def _folders(folder: OpenedFolder) -> list[str]:
    return [entry.path.name for entry in folder.entries() if entry.is_folder]
