"""The table of identifiers: every row of it, in every writing."""

import random
import string
from collections.abc import Callable

import pytest

from resources.personal_data.detector import Detector
from resources.personal_data.findings import Finding
from resources.personal_data.identifiers import Identifier, checksum
from resources.personal_data.national import IDENTIFIERS
from resources.personal_data.plain_form import folded

TRIES = 200_000
ROWS = [each for each in IDENTIFIERS if isinstance(each, Identifier)]
CASES = [(row, form, word) for row in ROWS for form, word in (
    *((form, "") for form in row.sure), *((form, (row.words or row.called)[0]) for form in row.forms)
)]  # fmt: skip
WRITINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "in small letters": str.lower,
    "zero-width characters between": "\u200b".join,
    "soft hyphens between": "\u00ad".join,
    "full-width": lambda text: "".join(chr(ord(c) + 0xFEE0) if c.isalnum() else c for c in text),
    "no-break spaces and dashes": lambda text: text.replace(" ", "\u00a0").replace("-", "\u2011"),
    "Arabic digits": lambda text: "".join(chr(0x660 + int(c)) if c.isdigit() else c for c in text),
}


def number(row: Identifier, form: str, chance: random.Random) -> str:
    """One that the row takes, with hyphens where its form has them."""
    for _ in range(TRIES):
        made = drawn(form, chance)
        if row.check is None or row.check(made.replace("-", "")):
            return made
    raise AssertionError(f"{row.kind}: no number of the form {form} in {TRIES} tries")


def drawn(form: str, chance: random.Random) -> str:
    classes = {"#": string.digits, "@": string.ascii_uppercase, "*": string.ascii_uppercase + string.digits}
    return "".join(chance.choice(classes.get(character, character)) for character in form)


def about(found: list[Finding], kind: str) -> list[tuple[int, int]]:
    return [(one.start, one.end) for one in found if one.kind == kind]


@pytest.mark.parametrize(
    ("row", "form", "word"), CASES, ids=[f"{row.kind} {form} {word}" for row, form, word in CASES]
)
def test_every_form_is_found_however_it_is_written_and_nothing_around_it(
    detector: Detector, row: Identifier, form: str, word: str
) -> None:
    chance = random.Random(form)
    for name, write in WRITINGS.items():
        value = write(number(row, form, chance))
        text = f"Żółć, {word} {value}, — ok"
        start = text.index(value)
        found = about(list(detector.find(text)), row.kind)
        assert (start, start + len(value)) in found, f"{name}: {text!r}"


@pytest.mark.parametrize("row", [row for row in ROWS if row.forms], ids=lambda row: row.kind)
def test_a_form_that_needs_a_word_is_found_with_spaces_anywhere_and_not_without_the_word(
    detector: Detector, row: Identifier
) -> None:
    bare = next((form for form in row.forms if form not in row.sure and "-" not in form), None)
    value = number(row, bare or row.forms[0], random.Random(row.kind))
    spaced = " ".join(value.replace("-", ""))
    for word in (*row.words, *row.called):
        text = f"{word.capitalize()}: {spaced}."
        assert about(list(detector.find(text)), row.kind), text
    if bare:
        assert not about(list(row.find(f"see {value} there", f"see {value} there")), row.kind)


@pytest.mark.parametrize("row", [row for row in ROWS if row.check], ids=lambda row: row.kind)
def test_a_number_that_its_check_refuses_is_taken_for_one_only_right_after_its_name(row: Identifier) -> None:
    chance, refused = random.Random(row.kind), 0
    for form in (*row.sure, *row.forms):
        for _ in range(100):
            value = drawn(form, chance)
            well = row.check is not None and row.check(value.replace("-", ""))
            word = row.words[0] if form in row.forms and row.words else ""
            if form in row.sure or word:
                text = f"{word} {value}"
                assert bool(list(row.find(text, text))) == well, text
            if form in row.forms and row.called:
                text = f"{folded(row.called[0])} is {value}"
                assert list(row.find(text, text)), text
                text = f"{folded(row.called[0])} 1 or 2 {value}"
                assert bool(list(row.find(text, text))) == well, text
            refused += not well
    assert refused, "a check that refuses nothing"


def test_a_bank_account_is_found_in_every_country_of_the_registry_and_no_further_than_it_goes(
    detector: Detector,
) -> None:
    for value in (
        "PL61109010140000071219812874",
        "DE89370400440532013000",
        "FR1420041010050500013M02606",
        "GB29NWBK60161331926819",
        "NO9386011117947",
        "MT84MALT011000012345MTLCAST001S",
    ):
        grouped = " ".join(value[at : at + 4] for at in range(0, len(value), 4)).lower()
        text = f"pay to {grouped} on monday 7 may"
        start = text.index(grouped)
        assert (start, start + len(grouped)) in about(list(detector.find(text)), "IBAN_CODE")
    assert not about(list(detector.find("PL61109010140000071219812875")), "IBAN_CODE")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"kind": "nip", "sure": ("####",)}, r"kind 'nip' is not taken; write it as CZ_BIRTH_NUMBER"),
        ({"kind": "X"}, r"X has no form; give `forms` \(with `words`\) or `sure`"),
        ({"kind": "X", "forms": ("####",)}, r"`forms` count only beside `words`"),
        ({"kind": "X", "words": ("id",), "sure": ("####",)}, r"`forms` count only beside `words`"),
        ({"kind": "X", "sure": ("###",)}, r"the form '###' is not taken; .* at least 4 of #"),
        ({"kind": "X", "sure": ("##--##",)}, r"the form '##--##' is not taken"),
        ({"kind": "X", "sure": ("#.###+",)}, r"the form '#\.###\+' is not taken"),
        ({"kind": "X", "sure": ("#" * 65,)}, r"64 characters at most"),
    ],
)
def test_a_row_that_could_not_work_is_refused(fields: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Identifier(country="", name="", **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("module", ["pl.nothing", "os.path", "../x", "util", ""])
def test_a_checksum_that_the_library_does_not_have_is_refused(module: str) -> None:
    with pytest.raises(ValueError, match=r"is no checksum of python-stdnum; one is pl\.pesel"):
        checksum(module)
