"""Reads rows from JSON, whatever the file is called: one object a line (JSON Lines), a list of objects, such
a list under `rows` or `data` of one object, or objects over several lines, one after the other.

No more than one row is held in memory.
"""

import codecs
import json
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from llm_assets.datasets.json_document import BLANK, Decoder, Document, NotTextError, TooLongError, is_cut
from llm_assets.datasets.landing_zone import LandingZone
from llm_assets.datasets.limits import TOO_DEEP
from llm_assets.datasets.mistakes import Mistakes
from llm_assets.datasets.text_lines import OTHER_MARKS, text_lines

NumberedRow = tuple[int, dict[str, object]]
WRAPS = ("rows", "data")
WRAPPED = re.compile(r'"(rows|data)"\s*:\s*\[\s*\{')
OF_A_ROW = {"instruction", "output", "prompt", "messages", "conversations", "text"}
REST_UNREAD = "what follows in this file was not read"
CUT_OBJECT = "the last object has no end (`}`); is the file still being written?"
UNFINISHED = "the list has no end (`]`); is the file still being written?"


def json_rows(zone: LandingZone, path: Path, mistakes: Mistakes) -> Iterator[NumberedRow]:
    """The rows of the file, each with the line on which it starts."""
    start = _start(zone, path)
    if start.startswith("[") or _is_document(start):
        yield from _document_rows(zone, path, mistakes)
    else:
        yield from _rows_of_lines(zone, path, mistakes)


def _start(zone: LandingZone, path: Path) -> str:
    """The first line that holds something; of a long one the beginning."""
    with zone.open(path) as file:
        start = file.read(1 << 16)
    if start.startswith(OTHER_MARKS):
        return ""
    start = start.removeprefix(codecs.BOM_UTF8).lstrip(b" \t\r\n")
    return start.partition(b"\n")[0].decode(errors="replace") + ("\n" if b"\n" in start else "")


def _is_document(start: str) -> bool:
    """Whether the file is no JSON Lines: an object goes on after its first line, or wraps a list of rows."""
    if not start.startswith("{"):
        return False
    try:
        Decoder().decode(start, 0)
    except json.JSONDecodeError as error:
        ends = start.endswith("\n") and error.pos >= len(start.rstrip())
        return (ends and not error.msg.startswith("Unterminated")) or bool(WRAPPED.search(start))
    except (ValueError, RecursionError):
        return False
    return bool(WRAPPED.search(start))


def _document_rows(zone: LandingZone, path: Path, mistakes: Mistakes) -> Iterator[NumberedRow]:
    wrapped = _is_wrapped(zone, path)
    with zone.open(path) as file:
        document = Document(file, zone.limits)
        try:
            if document.take("["):
                whole = yield from _listed_rows(path, document, mistakes)
                if whole and not document.ended:
                    problem = "something follows the list; the file holds one list and nothing else"
                    mistakes.add(path, document.line, "", problem)
            elif wrapped:
                _enter_list(document)
                whole = yield from _listed_rows(path, document, mistakes)
                if whole and document.ended:
                    mistakes.add(path, document.line, "", CUT_OBJECT)
            else:
                yield from _objects(path, document, mistakes)
        except NotTextError as error:
            mistakes.add(path, error.line, "", f"{error}; {REST_UNREAD}")


def _is_wrapped(zone: LandingZone, path: Path) -> bool:
    """Whether the file is one object whose only list holds the rows. A very long object is no row either."""
    with zone.open(path) as file:
        document = Document(file, zone.limits)
        try:
            return _wraps(document.value()) and document.ended
        except TooLongError:
            pass
        except (ValueError, RecursionError):
            return False
    with zone.open(path) as file:
        try:
            return _enter_list(Document(file, zone.limits))
        except (ValueError, RecursionError):
            return False


def _wraps(value: object) -> bool:
    if not isinstance(value, dict) or OF_A_ROW & value.keys():
        return False
    lists = [key for key, inner in value.items() if isinstance(inner, list)]
    rows = lists and value[lists[0]]
    return len(lists) == 1 and lists[0] in WRAPS and bool(rows) and isinstance(rows[0], dict)


def _enter_list(document: Document) -> bool:
    """Goes over the keys of the object to where its list of rows begins; False where it has none."""
    document.take("{")
    while document.peek() == '"':
        key = document.value()
        if key in OF_A_ROW or not document.take(":"):
            return False
        if key in WRAPS and document.take("["):
            return document.peek() == "{"
        document.value()
        document.take(",")
    return False


def _objects(path: Path, document: Document, mistakes: Mistakes) -> Iterator[NumberedRow]:
    """Objects one after the other, each a row."""
    while not document.ended:
        line = document.line
        try:
            value = document.value()
        except (ValueError, RecursionError) as error:
            problem = CUT_OBJECT if document.is_cut(error) else f"{_why(error)}; {REST_UNREAD}"
            mistakes.add(path, _line_of(error, line), "", problem)
            return
        yield from _row(path, line, value, document.decoder, mistakes)


def _listed_rows(path: Path, document: Document, mistakes: Mistakes) -> Generator[NumberedRow, None, bool]:
    """The rows of the list that was entered; passes over its end, and returns whether there was one."""
    line = document.line
    while not document.take("]"):
        document.peek()
        line = document.line
        try:
            value = document.value()
        except (ValueError, RecursionError) as error:
            problem = UNFINISHED if document.is_cut(error) else f"{_why(error)}; {REST_UNREAD}"
            mistakes.add(path, _line_of(error, line), "", problem)
            return False
        yield from _row(path, line, value, document.decoder, mistakes)
        if not document.take(",") and document.peek() != "]":
            unfinished = UNFINISHED if document.ended else f"a comma is missing after this row; {REST_UNREAD}"
            mistakes.add(path, line, "", unfinished)
            return False
    return True


def _rows_of_lines(zone: LandingZone, path: Path, mistakes: Mistakes) -> Iterator[NumberedRow]:
    decoder = Decoder()
    for number, line in text_lines(zone, path, mistakes):
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
    if not line.endswith("\n") and is_cut(error, line):
        return "the last line stops in the middle of a row; is the file still being written?"
    return f"{_why(error)}; give one whole JSON object a line, or one list of objects in the file"


def _why(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"is not JSON: {error.msg} (column {error.colno})"
    if isinstance(error, RecursionError):
        return TOO_DEEP
    return str(error) if isinstance(error, TooLongError | NotTextError) else f"is not JSON: {error}"


def _line_of(error: Exception, otherwise: int) -> int:
    if isinstance(error, json.JSONDecodeError):
        return error.lineno
    return error.line if isinstance(error, NotTextError) else otherwise


def _row(path: Path, line: int, value: Any, decoder: Decoder, mistakes: Mistakes) -> Iterator[NumberedRow]:
    for problem in decoder.problems:
        mistakes.add(path, line, "", problem)
    if not isinstance(value, dict):
        mistakes.add(path, line, "", "the row is not a JSON object; give {column: value, …}")
    elif not decoder.problems:
        yield line, value
