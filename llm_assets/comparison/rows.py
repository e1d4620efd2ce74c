"""Which rows two prepared datasets do not share.

Found in two passes that keep a hash of every row, and the text only of those that one dataset lacks. A row
whose answer became another one counts as changed: what was asked is the same, the rest is not. Rows of plain
text answer nothing, so they are only added or removed.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llm_assets.datasets.landing_zone import DATASET_INFO
from llm_assets.datasets.rows import HELD_OUT, TRAIN

SHOWN_ROWS = 3  # of each kind
Kind = Literal["added", "removed", "changed"]
Counts = Counter[bytes]


@dataclass(frozen=True, kw_only=True)
class RowSample:
    """A row that differs. An added one has no `before`, a removed one no `after`."""

    kind: Kind
    asked: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class RowChanges:
    """Numbers of rows. `moved` went from training to the held-out side or back."""

    before: int
    after: int
    added: int
    removed: int
    changed: int
    moved: int
    same_held_out: bool
    samples: tuple[RowSample, ...]


def compare_rows(before: Path, after: Path) -> RowChanges:
    """Compares two folders as `prepare` writes them."""
    old = {side: _count(before, side) for side in (TRAIN, HELD_OUT)}
    new = {side: _count(after, side) for side in (TRAIN, HELD_OUT)}
    old_all, new_all = old[TRAIN] + old[HELD_OUT], new[TRAIN] + new[HELD_OUT]
    gone, come = _rows(before, old_all - new_all), _rows(after, new_all - old_all)
    changed, samples = _paired(gone, come)
    return RowChanges(
        before=old_all.total(),
        after=new_all.total(),
        added=(new_all - old_all).total() - changed,
        removed=(old_all - new_all).total() - changed,
        changed=changed,
        moved=((old[TRAIN] & new[HELD_OUT]) + (old[HELD_OUT] & new[TRAIN])).total(),
        same_held_out=old[HELD_OUT] == new[HELD_OUT],
        samples=samples,
    )


def _count(folder: Path, side: str) -> Counts:
    return Counter(_hash(line) for line in _lines(folder, side))


def _lines(folder: Path, side: str) -> Iterator[bytes]:
    path = folder / f"{side}.jsonl"
    if path.is_file():
        with path.open("rb") as stream:
            yield from stream


def _hash(line: bytes) -> bytes:
    return hashlib.blake2b(line.rstrip(b"\n"), digest_size=16).digest()


def _rows(folder: Path, wanted: Counts) -> Iterator[tuple[str, str]]:
    """What was asked and what was answered in the wanted rows, each as often as it is wanted."""
    left = wanted.copy()
    layouts = json.loads((folder / DATASET_INFO).read_text())
    for side in (TRAIN, HELD_OUT):
        for line in _lines(folder, side):
            if left[key := _hash(line)] > 0:
                left[key] -= 1
                yield _asked_and_answered(json.loads(line), layouts[side])


def _paired(
    gone: Iterator[tuple[str, str]], come: Iterator[tuple[str, str]]
) -> tuple[int, tuple[RowSample, ...]]:
    """Pairs rows by what they ask: the number of pairs, and a few rows of each kind."""
    waiting: dict[str, list[str]] = defaultdict(list)
    for asked, answer in gone:
        waiting[asked].append(answer)
    changed, shown = 0, Counter[Kind]()
    samples: list[RowSample] = []

    def show(kind: Kind, asked: str, before: str, after: str) -> None:
        shown[kind] += 1
        if shown[kind] <= SHOWN_ROWS:
            samples.append(RowSample(kind=kind, asked=asked, before=before, after=after))

    for asked, answer in come:
        if waiting.get(asked):
            changed += 1
            show("changed", asked, waiting[asked].pop(0), answer)
        else:
            show("added", asked, "", answer)
    for asked, answers in waiting.items():
        for answer in answers:
            show("removed", asked, answer, "")
    return changed, tuple(sorted(samples, key=lambda each: ("changed", "added", "removed").index(each.kind)))


def _asked_and_answered(row: Mapping[str, Any], layout: Mapping[str, Any]) -> tuple[str, str]:
    """By LLaMA-Factory's columns: the system prompt and all but the last turn, and what is answered to it."""
    columns, content = layout.get("columns", {}), layout.get("tags", {}).get("content_tag", "value")
    turns = [str(turn.get(content, "")) for turn in row.get(columns.get("messages"), ())]
    answers = [row.get(columns.get(name)) for name in ("response", "chosen", "rejected", "kto_tag")]
    answered = [_text(answer, content) for answer in answers if answer not in (None, "")]
    if turns and not layout.get("ranking"):
        answered.insert(0, turns.pop())
    asked = [str(row[columns[name]]) for name in ("system", "prompt", "query") if row.get(columns.get(name))]
    return "\n".join(asked + turns), "\n".join(answered)


def _text(answer: Any, content: str) -> str:
    return str(answer.get(content, "")) if isinstance(answer, Mapping) else str(answer)
