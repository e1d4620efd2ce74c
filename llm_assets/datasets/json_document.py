"""The text of a JSON file that is not a row a line: values one after the other, one of them in memory.

Stricter than Python's `json`: a key that comes twice in an object and the non-JSON words NaN and Infinity
are problems, since the engine's own reader would take them for something else.
"""

import codecs
import json
import re
from collections import Counter
from typing import Any, BinaryIO

from llm_assets.datasets.limits import Limits

CHUNK_BYTES = 1 << 20
LONGEST_WORD = 20  # an escape or a word of JSON that the end of the window may have cut
BLANK = re.compile(r"[ \t\n\r]*")


class TooLongError(ValueError):
    """A value has more bytes than a row may have."""


class NotTextError(ValueError):
    """The file is not UTF-8."""

    def __init__(self, problem: str, line: int) -> None:
        super().__init__(problem)
        self.line = line


def is_cut(error: Exception, text: str) -> bool:
    """Whether the text is the beginning of a value, as far as the error of decoding it tells."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    return error.msg.startswith("Unterminated string") or error.pos >= len(text.rstrip()) - 1


class Decoder:
    """Decodes one JSON value at a time, and collects what Python's decoder would let pass."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object, parse_constant=self._constant)

    def decode(self, text: str, start: int) -> tuple[Any, int]:
        self.problems = []
        return self._decoder.raw_decode(text, start)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, object]:
        values = dict(pairs)
        if len(values) != len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            self.problems.append(f"the key {twice!r} comes twice in one object; keep one")
        return values

    def _constant(self, word: str) -> None:
        self.problems.append(f"{word} is not JSON; give a number or null")


class Document:
    """Reads on as far as a value needs, and forgets what lies behind.

    Raises (all methods):
        NotTextError: What is read is not UTF-8; says which byte.
    """

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        self.decoder = Decoder()
        self._file, self._limits = file, limits
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._at = "", 0
        self._bytes = 0
        self._line, self._counted = 1, 0  # the line of the character at _counted
        self._cut_off = 0  # how many characters of its first line the window lacks

    @property
    def line(self) -> int:
        """The line of what comes next."""
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    @property
    def ended(self) -> bool:
        """Whether nothing but blanks is left."""
        return not self.peek()

    def peek(self) -> str:
        """The next character that is no blank, "" at the end of the file."""
        while True:
            self._at = BLANK.match(self._text, self._at).end()  # type: ignore[union-attr]  # it always matches
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def take(self, character: str) -> bool:
        """Passes over the character if it is the next."""
        found = self.peek() == character
        self._at += found
        return found

    def value(self) -> Any:
        """The value that begins here.

        Raises:
            TooLongError: It has more bytes than a row may have.
            json.JSONDecodeError: It is not JSON; `lineno` counts from the beginning of the file.
            RecursionError: It is nested very deeply.
        """
        self.peek()
        while True:
            try:
                value, end = self.decoder.decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._may_be_cut(error) and self._more():
                    continue
                raise self._placed(error) from None
            if end == len(self._text) and self._more():  # a number may go on
                continue
            self._at = end
            return value

    def is_cut(self, error: Exception) -> bool:
        """Whether it comes from the end of the file: a value that is not whole."""
        return is_cut(error, self._text)

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        return error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - LONGEST_WORD

    def _placed(self, error: json.JSONDecodeError) -> json.JSONDecodeError:
        """With the line and column of the file in place of those of the window."""
        first = self.line - self._text.count("\n", 0, self._at)
        if error.lineno == 1:
            error.colno += self._cut_off
        error.lineno += first - 1
        return error

    def _more(self) -> bool:
        """Twice as much text as is waited for; False at the end of the file."""
        waiting = len(self._text) - self._at
        if waiting > self._limits.row_bytes:
            raise TooLongError(f"the row has {self._limits.over_row}")
        chunk = self._file.read(max(CHUNK_BYTES, waiting))
        decoded, line = self._decoded(chunk), self.line
        if not chunk:
            return False
        behind = self._text[: self._at]
        self._cut_off = self._at - behind.rfind("\n") - 1 if "\n" in behind else self._cut_off + self._at
        self._text = self._text[self._at :] + decoded
        self._at = self._counted = 0
        self._line = line
        return True

    def _decoded(self, chunk: bytes) -> str:
        before = len(self._utf8.getstate()[0])
        try:
            text = self._utf8.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            place = self._bytes - before + error.start
            found = f"byte {place} of the file (0x{error.object[error.start]:02x})"
            line = self.line + self._text.count("\n", self._at) + error.object.count(b"\n", 0, error.start)
            raise NotTextError(f"{found} is not UTF-8; save the file as UTF-8", line) from error
        self._bytes += len(chunk)
        return text
