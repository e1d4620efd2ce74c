"""What is wrong in a catalog: each mistake with its file, line and field, and all of them at once."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from resources.errors import InputError

Place = tuple[str | int, ...]
"""Keys and indices that lead to a field of a file."""


@dataclass(frozen=True, kw_only=True, order=True)
class Mistake:
    """One thing to correct. `file` is relative to the catalog's parent folder; `line` counts from 1."""

    file: str
    line: int | None
    field: str
    problem: str
    valid: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        what = f"{self.field}: {self.problem}" if self.field else self.problem
        return f"{place}: {what}; {self.valid}" if self.valid else f"{place}: {what}"


class CatalogError(InputError):
    """A catalog that cannot be used; `mistakes` holds every one that was found, in order of file and line."""

    def __init__(self, folder: Path, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(sorted(mistakes, key=lambda mistake: (mistake.file, mistake.line or 0)))
        number = len(self.mistakes)
        counted = "1 mistake" if number == 1 else f"{number} mistakes"
        super().__init__("\n".join([f"{counted} in the catalog {folder}:", *map(str, self.mistakes)]))


def did_you_mean(word: object, known: Iterable[str], *, otherwise: str = "") -> str:
    """`did you mean X?` for the nearest known word, or else what `otherwise` says."""
    nearest = difflib.get_close_matches(str(word).lower(), list(known), n=1)
    return f"did you mean {nearest[0]}?" if nearest else otherwise


def one_of(words: Iterable[str], *, at_most: int = 12) -> str:
    """`one of a, b, c`, cut where a list is too long to read."""
    listed = sorted(words)
    if not listed:
        return "there is none yet"
    more = f", … ({len(listed)} in all)" if len(listed) > at_most else ""
    return "one of " + ", ".join(listed[:at_most]) + more


def shown(value: object) -> str:
    """A value as a message shows it: cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A mistake whose place in a file is known, before anyone has looked up the line."""

    place: Place
    problem: str
    valid: str


def dotted(place: Place) -> str:
    """`recipe.lora_target[1]` of a place in a file."""
    text = ""
    for step in place:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text
