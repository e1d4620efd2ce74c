"""Which folders changed, and have they come to rest? The core of the sensors, without Dagster.

A folder's signature is a hash of its files' names, sizes and modification times; nothing is read.
A new signature has to be seen at two ticks in a row before it counts: a file that is still being
written keeps changing and is left for a later tick.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llm_assets.folder_signatures import GONE, Files, signature_of


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What a sensor remembers: the settled signature of each folder, and the ones not settled yet."""

    settled: Mapping[str, str] = field(default_factory=dict)
    moving: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def from_cursor(cursor: str | None) -> "Watched":
        return Watched(**json.loads(cursor)) if cursor else Watched()

    def to_cursor(self) -> str:
        content = {"settled": dict(self.settled), "moving": dict(self.moving)}
        return json.dumps(content, separators=(",", ":"), sort_keys=True)

    def settle(self, names: Iterable[str]) -> "Watched":
        """These have been dealt with (a run was asked for, or nobody needs one)."""
        done = {name: self.moving[name] for name in names}
        moving = {name: signature for name, signature in self.moving.items() if name not in done}
        settled = {name: each for name, each in {**self.settled, **done}.items() if each != GONE}
        return Watched(settled=settled, moving=moving)


def look(before: Watched, now: Mapping[str, str]) -> tuple[Watched, tuple[str, ...]]:
    """Compares the signatures of now with what was seen; returns the new memory and what came to rest."""
    seen = {**dict.fromkeys(before.settled, GONE), **now}  # what was emptied has changed, too
    moving = {name: signature for name, signature in seen.items() if before.settled.get(name) != signature}
    at_rest = tuple(name for name, signature in moving.items() if before.moving.get(name) == signature)
    return Watched(settled=before.settled, moving=moving), at_rest


def signatures(root: Path, look_into: Callable[[Path], Files]) -> dict[str, str]:
    """`{"<tenant>/<model>": signature}` of every folder two levels below `root` that holds watched files."""
    found = {}
    for tenant in _folders(root):
        for model in _folders(Path(tenant.path)):
            if (signature := signature_of(look_into(Path(model.path)))) != GONE:
                found[f"{tenant.name}/{model.name}"] = signature
    return found


def _folders(root: Path) -> list["os.DirEntry[str]"]:
    if not root.is_dir():
        return []
    with os.scandir(root) as entries:
        found = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    return sorted(found, key=lambda entry: entry.name)
