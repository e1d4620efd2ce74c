"""Reads rows from JSON: a list of objects, or one object a line (JSON Lines), whatever the file is called.

Stricter than Python's `json`: a key that comes twice in an object and the non-JSON words NaN and Infinity
are mistakes, since the engine's own reader would take them for something else.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm_assets.datasets.mistakes import Mistakes
from llm_assets.datasets.text_lines import text_lines

NumberedRow = tuple[int, dict[str, Any]]
BLANK = re.compile(r"[ \t\n\r]*")


def json_rows(path: Path, mistakes: Mistakes) -> Iterator[NumberedRow]:
    """The rows of the file, each with the line on which it starts."""
    if _is_list(path):
        yield from _listed_rows(path, mistakes)
    else:
        yield from _rows_of_lines(path, mistakes)


class _Decoder:
    """Decodes one JSON value at a time, and collects what Python's decoder would let pass."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object, parse_constant=self._constant)

    def decode(self, text: str, start: int) -> tuple[Any, int]:
        self.problems = []
        return self._decoder.raw_decode(text, start)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            self.problems.append(f"the key {twice!r} comes twice in one object; keep one")
        return values

    def _constant(self, word: str) -> None:
        self.problems.append(f"{word} is not JSON; give a number or null")


def _is_list(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(1 << 16).removeprefix(b"\xef\xbb\xbf")
    return start.lstrip(b" \t\r\n").startswith(b"[")


def _rows_of_lines(path: Path, mistakes: Mistakes) -> Iterator[NumberedRow]:
    decoder = _Decoder()
    for number, line in text_lines(path, mistakes):
        start = BLANK.match(line).end()  # type: ignore[union-attr]
        if start == len(line):
            continue
        try:
            value, end = decoder.decode(line, start)
            if BLANK.match(line, end).end() != len(line):  # type: ignore[union-attr]
                raise json.JSONDecodeError("something follows the object on its line", line, end)
        except (ValueError, RecursionError) as error:
            mistakes.add(path, number, "", _why_no_row(error, line))
            continue
        yield from _row(path, number, value, decoder, mistakes)


def _why_no_row(error: Exception, line: str) -> str:
    if not line.endswith("\n") and _is_cut(error, line):
        return "the last line stops in the middle of a row; is the file still being written?"
    return f"{_why(error)}; give one whole JSON object a line, or one list of objects in the file"


def _is_cut(error: Exception, text: str) -> bool:
    if not isinstance(error, json.JSONDecodeError):
        return False
    return error.msg.startswith("Unterminated string") or error.pos >= len(text.rstrip()) - 1


def _why(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"is not JSON: {error.msg} (column {error.colno})"
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    return f"is not JSON: {error}"


def _listed_rows(path: Path, mistakes: Mistakes) -> Iterator[NumberedRow]:
    text = "".join(line for _, line in text_lines(path, mistakes))
    decoder, line, counted = _Decoder(), 1, 0
    position = text.index("[") + 1
    while True:
        position = BLANK.match(text, position).end()  # type: ignore[union-attr]
        line, counted = line + text.count("\n", counted, position), position
        if text[position : position + 1] == "]":
            break
        try:
            value, position = decoder.decode(text, position)
        except (ValueError, RecursionError) as error:
            mistakes.add(path, _line_of(error, line), "", _why_no_list(error, text))
            return
        yield from _row(path, line, value, decoder, mistakes)
        position = BLANK.match(text, position).end()  # type: ignore[union-attr]
        if text[position : position + 1] == ",":
            position += 1
        elif text[position : position + 1] != "]":
            mistakes.add(path, line, "", _unfinished(text, position))
            return
    if text[position + 1 :].strip():
        mistakes.add(path, line, "", "something follows the list; the file holds one list and nothing else")


def _line_of(error: Exception, otherwise: int) -> int:
    return error.lineno if isinstance(error, json.JSONDecodeError) else otherwise


def _why_no_list(error: Exception, text: str) -> str:
    if _is_cut(error, text):
        return _unfinished(text, len(text))
    return f"{_why(error)}; what follows in this file was not read"


def _unfinished(text: str, position: int) -> str:
    if not text[position:].strip():
        return "the list has no end (`]`); is the file still being written?"
    return "a comma is missing after this row; what follows in this file was not read"


def _row(path: Path, line: int, value: Any, decoder: _Decoder, mistakes: Mistakes) -> Iterator[NumberedRow]:
    for problem in decoder.problems:
        mistakes.add(path, line, "", problem)
    if not isinstance(value, dict):
        mistakes.add(path, line, "", "the row is not a JSON object; give {column: value, …}")
    elif not decoder.problems:
        yield line, value
