"""Reads rows from JSON, whatever the file is called: one object a line (JSON Lines), a list of objects, such
a list under `rows` or `data` of one object, or objects over several lines, one after the other.

Stricter than Python's `json`: a key that comes twice in an object and the non-JSON words NaN and Infinity
are mistakes, since the engine's own reader would take them for something else.
"""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm_assets.datasets.mistakes import Mistakes
from llm_assets.datasets.text_lines import text_lines

NumberedRow = tuple[int, dict[str, Any]]
BLANK = re.compile(r"[ \t\n\r]*")
WRAPS = ("rows", "data")
WRAPPED = re.compile(r'"(rows|data)"\s*:\s*\[\s*\{')
OF_A_ROW = {"instruction", "output", "prompt", "messages", "conversations", "text"}
SEPARATOR = re.compile(r"[ \t\n\r,:]*")


def json_rows(path: Path, mistakes: Mistakes) -> Iterator[NumberedRow]:
    """The rows of the file, each with the line on which it starts."""
    start = _start(path)
    if start.startswith("["):
        text = _text(path, mistakes)
        yield from _listed_rows(path, text, text.index("[") + 1, mistakes)
    elif _is_document(start):
        yield from _rows_of_document(path, _text(path, mistakes), mistakes)
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


def _start(path: Path) -> str:
    """The first line that holds something; of a long one the beginning."""
    with path.open("rb") as file:
        start = file.read(1 << 16).removeprefix(codecs.BOM_UTF8).lstrip(b" \t\r\n")
    return start.partition(b"\n")[0].decode(errors="replace") + ("\n" if b"\n" in start else "")


def _is_document(start: str) -> bool:
    """Whether the file is no JSON Lines: an object goes on after its first line, or wraps a list of rows."""
    if not start.startswith("{"):
        return False
    try:
        _Decoder().decode(start, 0)
    except json.JSONDecodeError as error:
        ends = start.endswith("\n") and error.pos >= len(start.rstrip())
        return (ends and not error.msg.startswith("Unterminated")) or bool(WRAPPED.search(start))
    except (ValueError, RecursionError):
        return False
    return bool(WRAPPED.search(start))


def _text(path: Path, mistakes: Mistakes) -> str:
    return "".join(line for _, line in text_lines(path, mistakes))


def _rows_of_document(path: Path, text: str, mistakes: Mistakes) -> Iterator[NumberedRow]:
    """Objects one after the other, each a row; of a single one that wraps a list, the rows of the list."""
    decoder, line, counted = _Decoder(), 1, 0
    position = 0
    while (position := BLANK.match(text, position).end()) < len(text):  # type: ignore[union-attr]
        line, counted = line + text.count("\n", counted, position), position
        try:
            value, end = decoder.decode(text, position)
        except (ValueError, RecursionError) as error:
            mistakes.add(path, _line_of(error, line), "", _why_no_document(error, text))
            return
        if not counted or not text[:counted].strip():
            wrap = _wrap(value)
            if wrap and not text[end:].strip():
                yield from _wrapped_rows(path, text, position, wrap, mistakes)
                return
        yield from _row(path, line, value, decoder, mistakes)
        position = end


def _wrap(value: object) -> str | None:
    """The key under which the only list of an object holds the rows."""
    if not isinstance(value, dict) or OF_A_ROW & value.keys():
        return None
    lists = [key for key, inner in value.items() if isinstance(inner, list)]
    rows = lists and value[lists[0]]
    return lists[0] if len(lists) == 1 and lists[0] in WRAPS and rows and isinstance(rows[0], dict) else None


def _wrapped_rows(
    path: Path, text: str, position: int, wrap: str, mistakes: Mistakes
) -> Iterator[NumberedRow]:
    """Goes over the keys of the object, which is known to be whole, to where the list begins."""
    decoder = json.JSONDecoder()
    position += 1
    while True:
        position = SEPARATOR.match(text, position).end()  # type: ignore[union-attr]
        key, position = decoder.raw_decode(text, position)
        position = SEPARATOR.match(text, position).end()  # type: ignore[union-attr]
        if key == wrap:
            yield from _listed_rows(path, text, position + 1, mistakes, alone=False)
            return
        _, position = decoder.raw_decode(text, position)


def _why_no_document(error: Exception, text: str) -> str:
    if _is_cut(error, text):
        return "the last object has no end (`}`); is the file still being written?"
    return f"{_why(error)}; what follows in this file was not read"


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


def _listed_rows(
    path: Path, text: str, position: int, mistakes: Mistakes, *, alone: bool = True
) -> Iterator[NumberedRow]:
    """The rows of the list whose first one begins at `position`; `alone`: nothing may follow the list."""
    decoder, line, counted = _Decoder(), 1, 0
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
    if alone and text[position + 1 :].strip():
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
