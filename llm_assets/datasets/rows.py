"""The rows of a dataset on their way from the tenant's files to the two sides of the split."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from llm_assets.datasets.alpaca import read_alpaca
from llm_assets.datasets.conversations import read_conversation
from llm_assets.datasets.examples import Example, InvalidRow
from llm_assets.datasets.layouts import Layout
from llm_assets.datasets.mistakes import Mistakes
from llm_assets.datasets.reading import read_rows
from llm_assets.datasets.samples import SAMPLE_ROWS, sample
from llm_assets.datasets.sources import Source
from llm_assets.datasets.split import split_key
from llm_assets.datasets.statistics import Statistics
from llm_assets.datasets.writing import canonical, filled, layout_to_write, written_row

TRAIN, HELD_OUT = "train", "held_out"


class Rows:
    """Checked rows, kept in a file (`spool`) until all are known and each can go to its side.

    `keys` holds the split key of each row in the order read, `of_file` the number of rows of each file.
    """

    def __init__(self, spool: Path, sources: Sequence[Source], seed: int) -> None:
        self.keys: list[bytes] = []
        self.of_file: dict[Path, int] = {}
        self._layout = layout_to_write([source.layout for source in sources])
        self._spool, self._seed, self._tools = spool, seed, False

    @property
    def target(self) -> Layout:
        """The layout in which the rows are written; without `tools` if no row has any."""
        return self._layout if self._tools else replace(self._layout, tools=None)

    def read(self, source: Source, statistics: Statistics, mistakes: Mistakes) -> None:
        """Checks and takes in the rows of one file; after a first mistake it only looks for more."""
        before = len(self.keys)
        with self._spool.open("a", encoding="utf-8", newline="\n") as spool:
            for line, row in read_rows(source.path, mistakes):
                try:
                    example, text = self._checked(row, source.layout)
                    key = split_key(text.encode(), self._seed)
                except InvalidRow as error:
                    for field, problem in error.problems:
                        mistakes.add(source.path, line, field, problem)
                    continue
                except UnicodeEncodeError:
                    half = "holds half a character (a lone surrogate, \\ud800 to \\udfff)"
                    mistakes.add(source.path, line, "", f"{half}; write both halves, or the character itself")
                    continue
                if not mistakes.total:
                    self._tools = self._tools or bool(example.tools)
                    statistics.add(example)
                    self.keys.append(key)
                    spool.write(text + "\n")
        self.of_file[source.path] = len(self.keys) - before

    def write(self, folder: Path, held_out: frozenset[bytes]) -> list[dict[str, Any]]:
        """Writes each row to its side, in the order read; returns the first rows to train on, shortened."""
        samples: list[dict[str, Any]] = []
        target = self.target
        with ExitStack() as files:
            spool = files.enter_context(self._spool.open(encoding="utf-8", newline="\n"))
            train = files.enter_context(_side(folder, TRAIN))
            other = files.enter_context(_side(folder, HELD_OUT)) if held_out else train
            for key, line in zip(self.keys, spool, strict=True):
                row = filled(json.loads(line), target)
                (other if key in held_out else train).write(canonical(row) + "\n")
                if key not in held_out and len(samples) < SAMPLE_ROWS:
                    samples.append(sample(row))
        self._spool.unlink()
        return samples

    def _checked(self, row: dict[str, Any], layout: Layout) -> tuple[Example, str]:
        example = read_example(row, layout)
        return example, canonical(written_row(row, example, layout, self._layout))


def read_example(row: dict[str, Any], layout: Layout) -> Example:
    """What a row says. Raises InvalidRow with its first problem."""
    return read_alpaca(row, layout) if layout.formatting == "alpaca" else read_conversation(row, layout)


def _side(folder: Path, name: str) -> TextIO:
    return (folder / f"{name}.jsonl").open("w", encoding="utf-8", newline="\n")
