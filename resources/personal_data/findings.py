"""What a recognizer found."""

from typing import NamedTuple


class Finding(NamedTuple):
    """Personal data in a text. `value` is what equal data have in common, however they are written."""

    start: int
    end: int
    kind: str
    score: float
    value: str
