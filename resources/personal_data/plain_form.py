"""A text as recognizers read it, and where each of its characters stands in the original.

The same number can be written in full-width digits, with zero-width characters between them, with a
no-break space or a typographic dash. All of that is made plain (Unicode's NFKC, one character at a time;
any decimal digit becomes ASCII; what has no width goes; any dash is `-`, any space a space), so that one
form finds them all. It does not undo other encodings (percent, HTML, base64) nor letters of another
alphabet that merely look alike.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

_OTHER = re.compile(r"[^\x00-\x7f]")
_WITHOUT_WIDTH = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0")
"""Fillers and variation selectors that Unicode does not class as format characters (Cf)."""


@dataclass(frozen=True, kw_only=True)
class PlainForm:
    """`text`, and in `_places` the original's offset of each of its characters; None: the same."""

    text: str
    places: list[int] | None = None

    def original(self, start: int, end: int) -> tuple[int, int]:
        """Where `text[start:end]` stands in the original, what is without width inside it included."""
        if self.places is None:
            return start, end
        return self.places[start], self.places[end - 1] + 1


def plain_form(text: str) -> PlainForm:
    if text.isascii():
        return PlainForm(text=text)
    parts, places, at = [], list[int](), 0
    for found in _OTHER.finditer(text):
        here = found.start()
        plain = _plain(found[0])
        if plain == found[0]:
            continue
        parts += [text[at:here], plain]
        places += [*range(at, here), *([here] * len(plain))]
        at = here + 1
    if not at:
        return PlainForm(text=text)
    return PlainForm(text="".join([*parts, text[at:]]), places=[*places, *range(at, len(text))])


def folded(text: str) -> str:
    """In small letters without accents, as long as it was: words are looked for in it."""
    return text.lower() if text.isascii() else "".join(map(_folded, text))


@lru_cache(maxsize=4096)
def _plain(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cf" or character in _WITHOUT_WIDTH or "\ufe00" <= character <= "\ufe0f":
        return ""
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if category == "Zs":
        return " "
    if category == "Pd" or character == "\u2212":
        return "-"
    return unicodedata.normalize("NFKC", character)


@lru_cache(maxsize=4096)
def _folded(character: str) -> str:
    if character in "łŁ":  # Unicode takes its stroke for a part of the letter
        return "l"
    lower = unicodedata.normalize("NFKD", character)[0].lower()
    return lower if len(lower) == 1 else character
