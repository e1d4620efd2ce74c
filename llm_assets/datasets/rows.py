"""The rows of a dataset on their way from the tenant's files to the two sides of the split."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from llm_assets.datasets.alpaca import read_alpaca
from llm_assets.datasets.conversations import read_conversation
from llm_assets.datasets.examples import Example, InvalidRow, Problem
from llm_assets.datasets.layouts import Layout
from llm_assets.datasets.mistakes import Mistakes
from llm_assets.datasets.reading import read_rows
from llm_assets.datasets.remarks import Remark, Remarks
from llm_assets.datasets.samples import SAMPLE_ROWS, sample
from llm_assets.datasets.sources import REFUSED_COLUMNS, Source
from llm_assets.datasets.split import split_key
from llm_assets.datasets.statistics import Statistics
from llm_assets.datasets.writing import canonical, filled, layout_to_write, written_row

TRAIN, HELD_OUT = "train", "held_out"
PLACEHOLDER = re.compile(r"\{\{ ?([A-Za-z][\w -]{0,40}?) ?\}\}")
MEDIA_PLACEHOLDERS = ("<image>", "<video>", "<audio>")
LONE_SURROGATE = "holds half a character (a lone surrogate, \\ud800 to \\udfff)"


class CheckedRow(NamedTuple):
    """A row that can be learned from: what it says, and its canonical text in the layout that is written."""

    example: Example
    text: str


def checked_rows(
    source: Source, target: Layout, mistakes: Mistakes, remarks: Remarks, *, train_on_prompt: bool
) -> Iterator[CheckedRow | None]:
    """The rows of one file; None for each that is a mistake, so that who counts or stops can."""
    refused = [column for column in source.unused_columns if column.lower() in REFUSED_COLUMNS]
    for line, row in read_rows(source.zone, source.path, mistakes):
        try:
            _refuse_columns(row, refused)
            example = read_example(row, source.layout)
            _refuse_masks(example, source.layout, train_on_prompt)
            text = canonical(written_row(row, example, source.layout, target))
            text.encode()
        except InvalidRow as error:
            for field, problem in error.problems:
                mistakes.add(source.path, line, field, problem)
            yield None
            continue
        except UnicodeEncodeError:
            problem = f"{LONE_SURROGATE}; write both halves, or the character itself"
            mistakes.add(source.path, line, "", problem)
            yield None
            continue
        remarks.add(source.path, line, [*example.remarks, *_placeholders(example)])
        yield CheckedRow(example, text)


def read_example(row: dict[str, object], layout: Layout) -> Example:
    """What a row says. Raises InvalidRow with its first problem."""
    return read_alpaca(row, layout) if layout.formatting == "alpaca" else read_conversation(row, layout)


def _refuse_columns(row: dict[str, object], columns: Sequence[str]) -> None:
    problems = [
        Problem(column, f"would not be learned from; {REFUSED_COLUMNS[column.lower()]}")
        for column in columns
        if row.get(column) not in (None, "", [], {})
    ]
    if problems:
        raise InvalidRow(*problems)


def _refuse_masks(example: Example, layout: Layout, train_on_prompt: bool) -> None:
    if train_on_prompt and example.masks:
        problem = "an answer is not to be learned from, but the recipe's train_on_prompt learns everything"
        raise InvalidRow(Problem(str(layout.messages), f"{problem}; leave one of the two out"))


def _placeholders(example: Example) -> Iterator[Remark]:
    """Words that were to be filled in, like the `{{name}}` of LLaMA-Factory's example data."""
    for text in example.texts:
        if "{{" in text:
            for word in PLACEHOLDER.findall(text):
                said = (
                    f"the placeholder {{{{{word}}}}} is learned as it stands; fill it in if that is not meant"
                )
                yield Remark("placeholder", said)
        for word in MEDIA_PLACEHOLDERS:
            if word in text:
                yield Remark("placeholder", f"{word} is learned as a text; models here see no media")


class Rows:
    """Checked rows, kept in a file (`spool`) until all are known and each can go to its side.

    `keys` holds the split key of each row in the order read, `of_file` the number of rows of each file.
    """

    def __init__(self, spool: Path, sources: Sequence[Source], seed: int) -> None:
        self.keys: list[bytes] = []
        self.of_file: dict[Path, int] = {}
        self._layout = layout_to_write([source.layout for source in sources])
        self._spool, self._seed = spool, seed
        self._tools = self._masks = False

    @property
    def target(self) -> Layout:
        """The layout in which the rows are written; without `tools` and masks if no row has any."""
        layout = self._layout if self._tools else replace(self._layout, tools=None)
        return replace(layout, masks=self._masks)

    def read(
        self,
        source: Source,
        statistics: Statistics,
        mistakes: Mistakes,
        remarks: Remarks,
        *,
        train_on_prompt: bool,
    ) -> None:
        """Checks and takes in the rows of one file; after a first mistake it only looks for more."""
        before = len(self.keys)
        rows = checked_rows(source, self._layout, mistakes, remarks, train_on_prompt=train_on_prompt)
        with self._spool.open("a", encoding="utf-8", newline="\n") as spool:
            for row in rows:
                if row is not None and not mistakes.total:
                    self._tools = self._tools or bool(row.example.tools)
                    self._masks = self._masks or row.example.masks
                    statistics.add(row.example)
                    self.keys.append(split_key(row.text.encode(), self._seed))
                    spool.write(row.text + "\n")
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


def _side(folder: Path, name: str) -> TextIO:
    return (folder / f"{name}.jsonl").open("w", encoding="utf-8", newline="\n")
