"""Inputs that come near to what is expected: its pieces in any order, and a good text with a few changes."""

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

SIGNS = (
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b'"',
    b"\\",
    b" ",
    b"\n",
    b"\r\n",
    b"\t",
    b"\x00",
    b"\xff",
    b"\xef\xbb\xbf",
)
STRINGS = (
    b'""',
    b'"a"',
    b'"model"',
    b'"m\\u006fdel"',
    b'"stream"',
    b'"user"',
    b'"support_bot"',
    b'"\xc3\xa9"',
)
ODD_STRINGS = (b'"\\ud800"', b'"\\u00', b'"\xed\xa0\x80"', b'"\\/\\b\\f\\n"')
NUMBERS = (b"0", b"-0", b"1", b"01", b"1.", b"1e9", b"1e999", b"12345678901234567890", b"-", b"NaN")
OTHERS = (b"true", b"false", b"null", b"nul", b'{"a":', b"[[[[", b"{}", b"[]")
JSON_PIECES = (*SIGNS, *STRINGS, *ODD_STRINGS, *NUMBERS, *OTHERS)


def soup(pieces: Sequence[bytes], most: int = 24) -> SearchStrategy[bytes]:
    return st.lists(st.sampled_from(pieces) | st.binary(max_size=4), max_size=most).map(b"".join)


@st.composite
def changed(draw: DrawFn, text: bytes, pieces: Sequence[bytes], most: int = 4) -> bytes:
    """A good text with some parts replaced, doubled or left out."""
    made = bytearray(text)
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, len(made)))
        end = min(at + draw(st.integers(0, 12)), len(made))
        made[at:end] = draw(
            st.sampled_from(pieces) | st.binary(max_size=4) | st.just(bytes(made[at:end]) * 2)
        )
    return bytes(made)


def reads(text: bytes) -> tuple[bool, Any]:
    """Whether Python takes it for JSON, strictly, and for what."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        return True, json.loads(text.decode(), parse_constant=refuse)
    except (ValueError, RecursionError):
        return False, None
