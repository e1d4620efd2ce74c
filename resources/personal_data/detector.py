"""Everything that finds personal data, asked one after the other about a window of text.

Ours: the table of identifiers, telephone numbers, names and addresses by the words around them. Presidio's:
mail, IP and MAC addresses, wallets and the national numbers of other countries, by form and checksum; its
analyzer is left out, because its search for words around each finding takes time in the square of the text.
Where spaCy models are named, what they take for people and places as well.
"""

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from resources.errors import LlmAssetsError
from resources.personal_data.findings import Finding
from resources.personal_data.identifiers import Identifier
from resources.personal_data.national import IDENTIFIERS
from resources.personal_data.phones import phone_numbers
from resources.personal_data.plain_form import folded, plain_form
from resources.personal_data.wording import PERSON, name_before, persons_and_addresses

if TYPE_CHECKING:
    from presidio_analyzer import EntityRecognizer

LANGUAGE = "en"
"""A label for Presidio: every recognizer is told that it is for this one."""
NO_ARTIFACTS: Any = None
"""What a spaCy pipeline would have found first; recognizers of patterns do not look at it."""
LEAST_SCORE = 0.3  # Presidio's own forms of a number without a checksum or a context word score 0.01 to 0.2
RECOGNIZERS = (
    *("CryptoRecognizer", "IpRecognizer", "MacAddressRecognizer", "UsSsnRecognizer", "UsItinRecognizer"),
    *("CaSinRecognizer", "EsNifRecognizer", "EsNieRecognizer", "ItFiscalCodeRecognizer"),
    *("FiPersonalIdentityCodeRecognizer", "SePersonnummerRecognizer", "TrNationalIdRecognizer"),
    *("KrRrnRecognizer", "InAadhaarRecognizer", "AuTfnRecognizer", "AuMedicareRecognizer", "SgFinRecognizer"),
    "ThTninRecognizer",
)
"""What names one person, of countries that the table does not have."""
POLISH_LABELS = {
    "persName": "PERSON",
    "placeName": "LOCATION",
    "geogName": "LOCATION",
    "orgName": "ORGANIZATION",
}
"""Of spaCy's Polish models; Presidio knows the others'."""
WINDOW_CHARACTERS, OVERLAP_CHARACTERS = 4_000, 200  # some of Presidio's patterns are quadratic


class MissingModelError(LlmAssetsError):
    """A spaCy model is named and not installed."""


class Detector:
    """Loads what it needs when it is made (a second or two, some 200 MB; more with models)."""

    def __init__(self, *, models: Iterable[str] = (), identifiers: Iterable[Identifier] = ()) -> None:
        """Raises MissingModelError."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # spaCy's, about click, while it is imported
            self._recognizers = _of_presidio()
            self._models = [_loaded(model) for model in models]
        self._identifiers = (*IDENTIFIERS, *identifiers)

    def find(self, text: str, about: str = "") -> Iterator[Finding]:
        """In a text as it came. `about` stands before it, such as the name of the field that holds it."""
        plain = plain_form(text)
        for start in _windows(plain.text):
            window = plain.text[start : start + WINDOW_CHARACTERS]
            head = f"{about[:OVERLAP_CHARACTERS]}: " if about and not start else ""
            for found in self._in(head + window):
                if found.start >= len(head):
                    here = start - len(head)
                    first, last = plain.original(found.start + here, found.end + here)
                    yield found._replace(start=first, end=last)

    def _in(self, window: str) -> Iterator[Finding]:
        for found in self._alone(window):
            yield found
            if found.kind != PERSON and (name := name_before(window, found.start)):
                yield name

    def _alone(self, window: str) -> Iterator[Finding]:
        words = folded(window)
        if any(map(window.__contains__, "0123456789")):
            for identifier in self._identifiers:
                yield from identifier.find(window, words)
            yield from phone_numbers(window, words)
        for recognizer in self._recognizers:
            for each in recognizer.analyze(window, recognizer.supported_entities, NO_ARTIFACTS):
                if each.score >= LEAST_SCORE:
                    value = window[each.start : each.end].casefold()
                    yield Finding(each.start, each.end, each.entity_type, each.score, value)
        yield from persons_and_addresses(window, words)
        for model in self._models:
            yield from model(window)


def _windows(text: str) -> range:
    """Where to begin: every place lies in a window whole, with what is before and after it."""
    return range(0, max(len(text) - OVERLAP_CHARACTERS, 1), WINDOW_CHARACTERS - OVERLAP_CHARACTERS)


def _of_presidio() -> list["EntityRecognizer"]:
    from presidio_analyzer import predefined_recognizers

    found = [getattr(predefined_recognizers, name)(supported_language=LANGUAGE) for name in RECOGNIZERS]
    return [*found, _mail_recognizer()]


def _mail_recognizer() -> "EntityRecognizer":
    """Presidio's, but for the list of top-level domains: the package's own, no server is asked."""
    import tldextract
    from presidio_analyzer.predefined_recognizers import EmailRecognizer

    extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)

    class OfflineEmailRecognizer(EmailRecognizer):
        def validate_result(self, pattern_text: str) -> bool | None:
            # An unknown domain (.internal, .local) stays a medium finding: None changes no score.
            return True if extract(pattern_text).suffix else None

    return OfflineEmailRecognizer(supported_language=LANGUAGE)


def _loaded(name: str) -> Callable[[str], Iterator[Finding]]:
    """One that is installed under that name, or lies in that folder; nothing is ever downloaded."""
    import spacy
    from presidio_analyzer.nlp_engine.ner_model_configuration import MODEL_TO_PRESIDIO_ENTITY_MAPPING

    try:
        pipeline = spacy.load(
            name, exclude=["parser", "lemmatizer", "tagger", "morphologizer", "attribute_ruler"]
        )
    except OSError as error:
        raise MissingModelError(
            f"LLM_ASSETS_AUDIT_NER names the spaCy model {name!r}, which is not installed: install its "
            "wheel, or leave it out and names of people are found by the words around them alone."
        ) from error
    kinds: dict[str, str] = MODEL_TO_PRESIDIO_ENTITY_MAPPING | POLISH_LABELS
    return functools.partial(_entities, pipeline, kinds)


def _entities(pipeline: Any, kinds: dict[str, str], window: str) -> Iterator[Finding]:
    for entity in pipeline(window).ents:
        if kind := kinds.get(entity.label_):
            yield Finding(entity.start_char, entity.end_char, kind, 0.85, entity.text.casefold())
