"""Reads the rows of a dataset's file, one after the other, each with the line on which it starts.

Files are streamed; only a JSON list is held in memory, as text. What the columns mean is not known here.
"""

import csv
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from llm_assets.datasets.json_rows import NumberedRow, json_rows
from llm_assets.datasets.landing_zone import LandingZone
from llm_assets.datasets.limits import MOST_COLUMNS, TOO_DEEP, is_too_deep
from llm_assets.datasets.mistakes import Mistakes
from llm_assets.datasets.parquet_rows import ParquetError
from llm_assets.datasets.text_lines import text_lines

LONGEST_CSV_FIELD = (1 << 31) - 1
UNNAMED = "(column %d, without a name)"
TEXT_COLUMN = "text"


class Survey(NamedTuple):
    """A file's columns, in the order of their first appearance, and its first row (empty without rows)."""

    columns: tuple[str, ...]
    first_row: dict[str, object]


def read_rows(zone: LandingZone, path: Path, mistakes: Mistakes) -> Iterator[NumberedRow]:
    """The rows of a `.json`, `.jsonl`, `.csv`, `.parquet` or `.txt` file; what is no row is a mistake."""
    read = READERS.get(path.suffix.lower(), json_rows)
    for count, (line, row) in enumerate(read(zone, path, mistakes)):
        if count == zone.limits.rows:
            mistakes.add(path, line, "", f"the file has {zone.limits.over_rows}")
            return
        if is_too_deep(row):
            mistakes.add(path, line, "", TOO_DEEP)
        else:
            yield line, row


def survey(zone: LandingZone, path: Path, mistakes: Mistakes, *, most_rows: int | None = None) -> Survey:
    """Which columns a file has: JSON is read through (or `most_rows` of it), of the others one row tells."""
    alike = path.suffix.lower() in (".csv", ".parquet", ".txt")
    rows = islice(read_rows(zone, path, mistakes), 1 if alike else most_rows)
    first: dict[str, object] = {}
    columns: dict[str, None] = {}
    for line, row in rows:
        first = first or row
        columns |= dict.fromkeys(row)
        if len(columns) > MOST_COLUMNS:
            problem = (
                f"the rows up to here have {len(columns):,} columns, and at most {MOST_COLUMNS:,} are read"
            )
            mistakes.add(path, line, "", f"{problem}; leave out those that nothing is learned from")
            return Survey(columns=(), first_row={})
    return Survey(columns=tuple(columns), first_row=first)


class _RowTooLong(Exception):
    """A row of CSV goes on and on: a quote was opened and never closed, mostly."""


class _CountedLines:
    """The lines of a file, and how many of them, and characters of a row, the CSV reader has taken."""

    def __init__(self, zone: LandingZone, path: Path, mistakes: Mistakes) -> None:
        self.taken = self.of_row = 0
        self._lines, self._most = text_lines(zone, path, mistakes), zone.limits.row_bytes

    def __iter__(self) -> "_CountedLines":
        return self

    def __next__(self) -> str:
        self.taken, line = next(self._lines)
        self.of_row += len(line)
        if self.of_row > self._most:
            raise _RowTooLong
        return line


def _csv_rows(zone: LandingZone, path: Path, mistakes: Mistakes) -> Iterator[NumberedRow]:
    csv.field_size_limit(LONGEST_CSV_FIELD)
    lines = _CountedLines(zone, path, mistakes)
    reader = csv.reader(lines, strict=True)
    header: list[str] | None = None
    while True:
        start, lines.of_row = lines.taken + 1, 0
        try:
            values = next(reader)
        except StopIteration:
            return
        except _RowTooLong:
            problem = f"the row has {zone.limits.over_row}. What follows in this file was not read"
            mistakes.add(path, start, "", f"{problem}; is a double quote missing?")
            return
        except csv.Error as error:
            mistakes.add(
                path, start, "", f"is not CSV: {error}; put texts in double quotes, and double those inside"
            )
            continue
        if not values:
            continue
        if header is None:
            header = [name or UNNAMED % number for number, name in enumerate(values, 1)]
            if not _is_header(path, start, header, mistakes):
                return
        elif len(values) != len(header):
            counted = f"has {len(values)} values, the header {len(header)}"
            mistakes.add(path, start, "", f"{counted}; put a text that holds a comma in double quotes")
        else:
            yield start, dict(zip(header, values, strict=True))


def _is_header(path: Path, line: int, header: list[str], mistakes: Mistakes) -> bool:
    problem = None
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        problem = "the columns are not separated by commas; save the file with commas"
    elif len(set(header)) != len(header):
        problem = "a column comes twice in the header; keep one"
    if problem:
        mistakes.add(path, line, "", problem)
    return problem is None


def _text_rows(zone: LandingZone, path: Path, mistakes: Mistakes) -> Iterator[NumberedRow]:
    """As LLaMA-Factory reads it, a line is a row; empty lines are none."""
    for number, line in text_lines(zone, path, mistakes):
        text = line.rstrip("\r\n")
        if text.strip():
            yield number, {TEXT_COLUMN: text}


def _parquet_rows(zone: LandingZone, path: Path, mistakes: Mistakes) -> Iterator[NumberedRow]:
    with zone.open(path) as file:
        try:
            yield from enumerate(zone.parquet.rows(file), 1)
        except ParquetError as error:
            mistakes.add(path, error.row, "", error.problem)


READERS: Mapping[str, Callable[[LandingZone, Path, Mistakes], Iterator[NumberedRow]]] = {
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
    ".txt": _text_rows,
}
"""By suffix; all other files hold JSON."""
