"""What whoever reads an artifact is given, from the cache or from a store on this very disk."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Held:
    """An artifact on this node's disk, its files alone. A shared flock on `lease` keeps it there."""

    folder: Path
    lease: Path
