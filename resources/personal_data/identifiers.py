"""Numbers that name a person, found by a table: how each is written, its checksum, the words that stand near.

A form is written in `#` (a digit), `@` (a letter), `*` (either); any other letter or digit is itself. Where
a form has `-`, one or two separators (space, line break, dot, hyphen, slash) must stand. Elsewhere up to two
may, between any two characters; not so in a form with letters that tells by itself, or "in 12345" would be
taken for one. Forms have a bounded length and no repetition, whoever writes them: looking for one takes time
in proportion to the text.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module

from resources.personal_data.findings import Finding
from resources.personal_data.plain_form import folded

SEPARATOR = r"[\s.\-/]"
WORDS_BEFORE, WORDS_AFTER, NAME_BEFORE = 50, 25, 25
"""How near a word must stand, in characters; and the number's own name, with no figure between."""
LONGEST_FORM, LEAST_OPEN = 64, 4
SURE, LIKELY = 0.9, 0.6
"""Scores: with a checksum that fits, and by form and words alone. The better one keeps what two claim."""

FORM_RULE = (
    "letters, digits, _, single - between them (a separator), and at least "
    f"{LEAST_OPEN} of # (a digit), @ (a letter) and * (either), {LONGEST_FORM} characters at most"
)

_CLASSES = {"#": "[0-9]", "@": "[A-Za-z]", "*": "[0-9A-Za-z]"}
_KIND = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
_FORM = re.compile(r"[A-Za-z0-9_#@*]+(-[A-Za-z0-9_#@*]+)*")
_MODULE = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)?")

Check = Callable[[str], bool]
"""Whether a number, without separators and in capitals, is one that could have been given out."""


@dataclass(frozen=True, kw_only=True)
class Identifier:
    """One kind of number. `sure`: forms that tell by themselves; `forms`: those that need one of `words`.

    `called` is what the number is called: right before one, it tells also where the checksum does not fit,
    as that of a mistyped number. It counts among `words`.
    """

    kind: str
    country: str
    name: str
    forms: tuple[str, ...] = ()
    sure: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    called: tuple[str, ...] = ()
    check: Check | None = None

    def __post_init__(self) -> None:
        """Raises ValueError, which says what is wrong and what would do."""
        if not _KIND.fullmatch(self.kind):
            raise ValueError(f"kind {self.kind!r} is not taken; write it as CZ_BIRTH_NUMBER")
        if not self.forms and not self.sure:
            raise ValueError(f"{self.kind} has no form; give `forms` (with `words`) or `sure`")
        if bool(self.forms) != bool(self.words or self.called):
            raise ValueError(
                f"{self.kind}: `forms` count only beside `words` or `called`; give both, or `sure` alone"
            )
        for form in (*self.forms, *self.sure):
            if len(form) > LONGEST_FORM or not _FORM.fullmatch(form) or _open(form) < LEAST_OPEN:
                raise ValueError(f"{self.kind}: the form {form!r} is not taken; it is made of {FORM_RULE}")

    def find(self, text: str, words: str) -> Iterator[Finding]:
        """In a plain text; `words` is the same text folded."""
        yield from self._matching(self._sure, text)
        if self._forms and self._words and self._words.search(words):
            near, called = self._words, self._called
            for found in self._matching(self._forms, text, checked=False):
                fits = self.check is None or self.check(found.value)
                if fits and _near(near, words, found):
                    yield found._replace(score=SURE if self.check else LIKELY)
                elif (
                    not fits
                    and called
                    and called.search(words[max(found.start - NAME_BEFORE, 0) : found.start])
                ):
                    yield found

    def _matching(
        self, pattern: re.Pattern[str] | None, text: str, *, checked: bool = True
    ) -> Iterator[Finding]:
        for match in pattern.finditer(text) if pattern else ():
            start, end = match.span(1)
            value = re.sub(SEPARATOR, "", match[1]).upper()
            if not checked or self.check is None or self.check(value):
                yield Finding(start, end, self.kind, SURE if checked and self.check else LIKELY, value)

    @cached_property
    def _sure(self) -> re.Pattern[str] | None:
        return _compiled(self.sure, loose=False)

    @cached_property
    def _forms(self) -> re.Pattern[str] | None:
        return _compiled(self.forms, loose=True)

    @cached_property
    def _words(self) -> re.Pattern[str] | None:
        words = _any_of((*self.words, *self.called))
        return re.compile(words) if words else None

    @cached_property
    def _called(self) -> re.Pattern[str] | None:
        words = _any_of(self.called)
        return re.compile(rf"{words}[^0-9\n]{{0,{NAME_BEFORE}}}$") if words else None


def _open(form: str) -> int:
    return sum(map(form.count, _CLASSES))


def _any_of(words: tuple[str, ...]) -> str:
    return rf"(?<![a-z])(?:{'|'.join(re.escape(folded(word)) for word in words)})" if words else ""


def checksum(module: str) -> Check:
    """`is_valid` of a module of python-stdnum, such as `pl.pesel` or `luhn`.

    Raises:
        ValueError: There is no such module.
    """
    if _MODULE.fullmatch(module):
        try:
            return import_module(f"stdnum.{module}").is_valid
        except (ImportError, AttributeError):
            pass
    raise ValueError(f"check {module!r} is no checksum of python-stdnum; one is pl.pesel, de.idnr or luhn")


def _compiled(forms: tuple[str, ...], *, loose: bool) -> re.Pattern[str] | None:
    """At each place, the first of the forms that stands there: also within what was looked at before."""
    if not forms:
        return None
    return re.compile(f"(?=({'|'.join(f'(?:{_pattern(form, loose=loose)})' for form in forms)}))")


def _pattern(form: str, *, loose: bool) -> str:
    figures = set(form) <= set("#-0123456789")
    before, after = (r"(?<![0-9])(?<![0-9]\.)", r"(?![0-9])") if figures else (r"(?<![^\W_])", r"(?![^\W_])")
    parts = [before]
    for at, character in enumerate(form):
        if character != "-":
            parts.append(_CLASSES.get(character) or _literal(character))
        if character == "-" or form[at + 1 : at + 2] in ("-", ""):
            parts.append(f"{SEPARATOR}{{1,2}}" if character == "-" else "")
        elif loose or figures:
            parts.append(f"{SEPARATOR}{{0,2}}")
    return "".join([*parts, after])


def _literal(character: str) -> str:
    return f"[{character.upper()}{character.lower()}]" if character.isalpha() else re.escape(character)


def _near(words: re.Pattern[str], text: str, found: Finding) -> bool:
    before = words.search(text, max(found.start - WORDS_BEFORE, 0), found.start)
    return bool(before or words.search(text, found.end, found.end + WORDS_AFTER))
