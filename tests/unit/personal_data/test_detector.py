"""What is found in whole texts, how long it takes, and what a model adds."""

import random
import time
import unicodedata
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resources.personal_data.detector import WINDOW_CHARACTERS, Detector, MissingModelError
from resources.personal_data.plain_form import folded, plain_form
from tests.unit.personal_data.measuring import LANGUAGES, NUMBERS, PAGE, marked, measure, tables, with_tables

PESEL, NO_WIDTH = "44051401359", "\u200b\u200d\u2060\ufeff\u00ad"
FIGURES_AND_SIGNS = ("1", "11", "0", "9", " ", "  ", "-", "/", ".", "(", ")", "+", ":", "@", "'", "\n", "12 ")
LETTERS = ("a", "a.", "A", "A. ", "Ab ", "é", "\u0301", "\u200b", "\uff11", "PL", "PL61", "GB", "FR76 ")
WORDS = ("Mr ", "Pan ", "dr ", "de ", "von ", "d'", "ul. ", "rue ", "Road ", "straße ", "00-950 ", "75002 ")
PIECES = [*FIGURES_AND_SIGNS, *LETTERS, *WORDS, "nip ", "passport ", "tel ", "name: "]
MOST_S_PER_CHARACTER = 0.0005
"""Ten times what the slowest of them takes; what grows with the square of the text takes far more."""


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60))
def test_each_character_of_the_plain_form_stands_where_it_says(text: str) -> None:
    plain = plain_form(text)
    for at, character in enumerate(plain.text):
        start, end = plain.original(at, at + 1)
        assert end == start + 1
        shown = unicodedata.normalize("NFKC", text[start])
        assert character in shown or character in " -0123456789"
    assert len(folded(plain.text)) == len(plain.text)


@settings(max_examples=150, deadline=None)
@given(
    st.text(max_size=30),
    st.text(max_size=30),
    st.lists(st.sampled_from("\u200b\u200d\u2060\ufeff\u00ad"), max_size=9),
)
def test_a_number_is_found_in_any_surroundings_and_these_stay(
    detector: Detector, before: str, after: str, hidden: list[str]
) -> None:
    written = PESEL
    for at, character in enumerate(hidden):
        written = written[: 2 * at + 1] + character + written[2 * at + 1 :]
    text = f"{before} | {written} | {after}"
    start = len(before) + 3
    assert any(
        each.kind == "PL_PESEL" and (each.start, each.end) == (start, start + len(written))
        for each in detector.find(text)
    )


def test_the_page_tells_what_is_found_as_it_is_measured(detector: Detector) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_tables(page, tables(detector)), "run: python -m tests.unit.personal_data.measuring"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_identifier_of_the_texts_is_found_and_nothing_that_is_none(
    detector: Detector, language: str
) -> None:
    result = measure(detector, marked(language))
    found, all_of = result.found[NUMBERS]
    assert found == all_of > 20
    assert result.false == 0


def hostile(seed: int, length: int) -> str:
    """A few pieces again and again: what makes a search that goes back and forth take its longest."""
    chance = random.Random(seed)
    part = "".join(chance.choices(PIECES, k=chance.randint(1, 6)))
    return (part * (length // len(part) + 1))[:length]


def check_time(detector: Detector, text: str) -> None:
    begun = time.process_time()
    list(detector.find(text))
    taken = time.process_time() - begun
    assert taken < MOST_S_PER_CHARACTER * len(text) + 0.1, f"{taken:.2f} s for {text[:60]!r}…"


@pytest.mark.parametrize("piece", PIECES)
def test_no_piece_repeated_takes_long(detector: Detector, piece: str) -> None:
    check_time(detector, (piece * WINDOW_CHARACTERS)[:WINDOW_CHARACTERS])


def test_no_hostile_text_takes_long(detector: Detector) -> None:
    for seed in range(60):
        check_time(detector, hostile(seed, WINDOW_CHARACTERS))


@pytest.mark.long
def test_no_hostile_text_of_many_takes_long(detector: Detector) -> None:
    for seed in range(5_000):
        check_time(detector, hostile(seed, WINDOW_CHARACTERS))


def test_more_numbers_than_can_be_checked_count_as_found(detector: Detector) -> None:
    numbers = [f"+48 {600 + at % 9} {at:03d} {at:03d}" for at in range(240)]
    text = "; ".join(numbers)[: WINDOW_CHARACTERS - 5]
    covered = {at for each in detector.find(text) for at in range(each.start, each.end)}
    assert not [text[at] for at in range(len(text) - 20) if text[at].isdigit() and at not in covered]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Order 12345678 of 2026-11-22 costs 1,234.50 EUR.", True),
        ("Invoice FV/2026/11/0042, version 3.13.7, 104857600 bytes.", True),
        ("Kapitał 601 234 567 zł", True),
        ("call 601 234 567", False),
        ("Hello Team, the Run of Monday", True),
        ("Dear Peter, thank you", False),
    ],
)
def test_what_is_nobodys_stays(detector: Detector, text: str, kept: bool) -> None:
    assert (not list(detector.find(text))) == kept


def test_a_model_finds_names_that_no_word_tells_also_by_the_polish_labels(tmp_path: Path) -> None:
    model = trained(tmp_path / "names")
    text = "Yesterday Anna Nowak came."
    assert not list(Detector().find(text))
    (found,) = Detector(models=[str(model)]).find(text)
    assert (found.kind, text[found.start : found.end]) == ("PERSON", "Anna Nowak")


def test_a_model_that_is_not_installed_is_named() -> None:
    with pytest.raises(
        MissingModelError, match="'xx_no_such_model', which is not installed: install its wheel"
    ):
        Detector(models=["xx_no_such_model"])


def trained(folder: Path) -> Path:
    """A spaCy pipeline of its own, which has learned one name by heart."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import spacy
        from spacy.training import Example

    pipeline = spacy.blank("xx")
    recognizer: Any = pipeline.add_pipe("ner")
    recognizer.add_label("persName")
    texts = [("Yesterday Anna Nowak came.", [(10, 20, "persName")]), ("Yesterday nobody came.", [])]
    examples = [Example.from_dict(pipeline.make_doc(text), {"entities": spans}) for text, spans in texts]
    optimizer = pipeline.initialize(lambda: examples)
    for _ in range(30):
        pipeline.update(examples, sgd=optimizer)
    pipeline.to_disk(folder)
    return folder
