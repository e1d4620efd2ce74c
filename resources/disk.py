"""Is there room? Asked before work that would otherwise fail after hours."""

import shutil
from pathlib import Path

from resources.errors import LlmAssetsError

MIB = 2**20


class DiskError(LlmAssetsError):
    """There is too little free space for the work that was asked for."""


def require_free_space(folder: Path, needed_bytes: int, *, what: str) -> None:
    """Raises:
    DiskError: The disk that holds `folder` has less than `needed_bytes` free.
    """
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise DiskError(
            f"{what} needs about {needed_bytes // MIB} MiB, but the disk of {folder} has {free // MIB} MiB "
            "free. Free some space or move LLM_ASSETS_HOME to a larger disk, then run again."
        )
