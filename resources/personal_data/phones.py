"""Telephone numbers, checked by phonenumbers (Google's libphonenumber).

Its own matcher tries every way to cut a run of figures and takes 0.1 ms for each character of a hostile
text, so the cuts are made here: only those that look like a number are put to it. Where one window of text
holds more of them than `MOST_CHECKS`, the others count as found without being checked.
"""

import re
from collections.abc import Iterator

import phonenumbers

from resources.personal_data.findings import Finding
from resources.personal_data.identifiers import WORDS_BEFORE

KIND, SCORE = "PHONE_NUMBER", 0.4  # below what an address of the network or a number of a table has
REGIONS = ("GB", "DE", "FR", "PL", "US", "ES", "IT", "IN")
"""Whose national forms are known; with +… or 00… those of every country."""
MOST_CHECKS = 150
LEAST_DIGITS, MOST_DIGITS, MOST_GROUPS, MOST_SINGLE_DIGITS = 9, 15, 7, 2

_YEAR = re.compile(r"(?:19|20)[0-9]{2}")
_RUN = re.compile(r"(?<![^\W_])(?<![.,])(?:\+\s?)?\(?[0-9](?:[ \t.\-/()]{0,3}[0-9]){8,}")
_GROUP = re.compile(r"[0-9]+")
_WORDS = re.compile(
    r"(?<![a-z])(?:tel|phone|mobil|handy|cell|call|ring|sms|text|whatsapp|fax|kom\b|komork|dzwon|zadzwon|numer|kontakt"
    r"|rufen|ruf|anruf|portable|appel|contact|joindre)"
)
_MONEY = re.compile(r"\s?(?:zl|pln|eur|usd|gbp|chf|euro)\b|\s?[€$£%]")


def phone_numbers(text: str, words: str) -> Iterator[Finding]:
    """In a plain text; `words` is the same text folded."""
    left = [MOST_CHECKS]
    for run in _RUN.finditer(text):
        groups = [group.span() for group in _GROUP.finditer(text, *run.span())]
        at = 0
        while at < len(groups):
            last = _number_from(text, words, run.start(), groups, at, left)
            if last is None:
                at += 1
                continue
            start, end = _begin(text, run.start(), groups, at), groups[last][1]
            yield Finding(start, end, KIND, SCORE, _digits(text, groups[at : last + 1]))
            at = last + 1


def _number_from(
    text: str, words: str, run: int, groups: list[tuple[int, int]], at: int, left: list[int]
) -> int | None:
    """The last group of the longest number that begins with a group; None: none does."""
    for last in range(min(at + MOST_GROUPS, len(groups)) - 1, at - 1, -1):
        used = groups[at : last + 1]
        digits = _digits(text, used)
        if not LEAST_DIGITS <= len(digits) <= MOST_DIGITS:
            continue
        if sum(end - start == 1 for start, end in used) > MOST_SINGLE_DIGITS:
            continue
        start = _begin(text, run, groups, at)
        plus = text[start] == "+"
        abroad = plus or digits.startswith("00")
        bare = last == at and digits[0] != "0" and not _asked_for(words, start)
        if not abroad and (_YEAR.fullmatch(text, *used[0]) or not _national(digits, bare=bare)):
            continue
        if _MONEY.match(words, used[-1][1]):
            continue
        left[0] -= 1
        if left[0] < 0 or (_international(digits, plus=plus) if abroad else _of_a_region(digits, bare=bare)):
            return last
    return None


def _national(digits: str, *, bare: bool) -> bool:
    """Whether it may be one of `REGIONS`; `bare`: in one piece, without a 0 first and without a word."""
    if digits[0] == "0":
        return len(digits) <= 12
    if bare:
        return len(digits) == 9
    return len(digits) <= 10 or (len(digits) == 11 and digits[0] == "1")


def _international(digits: str, *, plus: bool) -> bool:
    """A + and the code of a country say enough: the rest need only be as long as numbers there."""
    if plus:
        try:
            return phonenumbers.is_possible_number(phonenumbers.parse(f"+{digits}"))
        except phonenumbers.NumberParseException:
            return False
    return _is_valid(f"+{digits.removeprefix('00')}", None)


def _of_a_region(digits: str, *, bare: bool) -> bool:
    """Of nine bare figures only a Polish mobile's: any other prefix is a landline's somewhere."""
    if bare:
        return _is_valid(digits, "PL", only=phonenumbers.PhoneNumberType.MOBILE)
    return any(_is_valid(digits, region) for region in REGIONS)


def _is_valid(digits: str, region: str | None, *, only: int | None = None) -> bool:
    try:
        number = phonenumbers.parse(digits, region)
    except phonenumbers.NumberParseException:
        return False
    return phonenumbers.is_valid_number(number) and only in (None, phonenumbers.number_type(number))


def _asked_for(words: str, start: int) -> bool:
    return bool(_WORDS.search(words, max(start - WORDS_BEFORE, 0), start))


def _begin(text: str, run: int, groups: list[tuple[int, int]], at: int) -> int:
    """With the + before its first group."""
    start = groups[at][0]
    return run if at == 0 and "+" in text[run:start] else start


def _digits(text: str, groups: list[tuple[int, int]]) -> str:
    return "".join(text[start:end] for start, end in groups)
