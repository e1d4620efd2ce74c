"""Which folders changed, and have they come to rest? The core of the sensors, without Dagster.

A folder's stamp is a hash of its files' names, sizes and modification times; nothing is read.
A new stamp has to be seen at two ticks in a row before it counts: a file that is still being
written keeps changing and is left for a later tick.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from llm_assets.folder_stamps import GONE


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What a sensor remembers: the settled stamp of each folder, and the ones not settled yet."""

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
        moving = {name: stamp for name, stamp in self.moving.items() if name not in done}
        settled = {name: each for name, each in {**self.settled, **done}.items() if each != GONE}
        return Watched(settled=settled, moving=moving)


def look(before: Watched, now: Mapping[str, str]) -> tuple[Watched, tuple[str, ...]]:
    """Compares the stamps of now with what was seen; returns the new memory and what came to rest."""
    seen = {**dict.fromkeys(before.settled, GONE), **now}  # what was emptied has changed, too
    moving = {name: stamp for name, stamp in seen.items() if before.settled.get(name) != stamp}
    at_rest = tuple(name for name, stamp in moving.items() if before.moving.get(name) == stamp)
    return Watched(settled=before.settled, moving=moving), at_rest
