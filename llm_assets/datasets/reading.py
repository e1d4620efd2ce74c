"""Reads the rows of a dataset's file, one after the other, each with the line on which it starts.

Files are streamed; only a JSON list is held in memory, as text. What the columns mean is not known here.
"""

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from llm_assets.datasets.json_rows import NumberedRow, json_rows
from llm_assets.datasets.mistakes import Mistakes
from llm_assets.datasets.text_lines import text_lines

PARQUET_BATCH_ROWS = 1000
LONGEST_CSV_FIELD = (1 << 31) - 1
UNNAMED = "(column %d, without a name)"
TEXT_COLUMN = "text"


class Survey(NamedTuple):
    """A file's columns, in the order of their first appearance, and its first row (empty without rows)."""

    columns: tuple[str, ...]
    first_row: dict[str, Any]


def read_rows(path: Path, mistakes: Mistakes) -> Iterator[NumberedRow]:
    """The rows of a `.json`, `.jsonl`, `.csv`, `.parquet` or `.txt` file; what is no row is a mistake."""
    match path.suffix.lower():
        case ".csv":
            return _csv_rows(path, mistakes)
        case ".parquet":
            return _parquet_rows(path, mistakes)
        case ".txt":
            return _text_rows(path, mistakes)
        case _:
            return json_rows(path, mistakes)


def survey(path: Path, mistakes: Mistakes, *, most_rows: int | None = None) -> Survey:
    """Which columns a file has: JSON is read through (or `most_rows` of it), of the others one row tells."""
    alike = path.suffix.lower() in (".csv", ".parquet", ".txt")
    rows = islice(read_rows(path, mistakes), 1 if alike else most_rows)
    first: dict[str, Any] = {}
    columns: dict[str, None] = {}
    for _, row in rows:
        first = first or row
        columns |= dict.fromkeys(row)
    return Survey(columns=tuple(columns), first_row=first)


class _CountedLines:
    """The lines of a file, and how many of them the CSV reader has taken."""

    def __init__(self, path: Path, mistakes: Mistakes) -> None:
        self.taken = 0
        self._lines = text_lines(path, mistakes)

    def __iter__(self) -> "_CountedLines":
        return self

    def __next__(self) -> str:
        self.taken, line = next(self._lines)
        return line


def _csv_rows(path: Path, mistakes: Mistakes) -> Iterator[NumberedRow]:
    csv.field_size_limit(LONGEST_CSV_FIELD)
    lines = _CountedLines(path, mistakes)
    reader = csv.reader(lines, strict=True)
    header: list[str] | None = None
    while True:
        start = lines.taken + 1
        try:
            values = next(reader)
        except StopIteration:
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


def _text_rows(path: Path, mistakes: Mistakes) -> Iterator[NumberedRow]:
    """As LLaMA-Factory reads it, a line is a row; empty lines are none."""
    for number, line in text_lines(path, mistakes):
        text = line.rstrip("\r\n")
        if text.strip():
            yield number, {TEXT_COLUMN: text}


def _parquet_rows(path: Path, mistakes: Mistakes) -> Iterator[NumberedRow]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        why = str(error).splitlines()[0]
        mistakes.add(path, number + 1, "", f"the file is no whole Parquet file: {why}; write it again")
