"""Texts without the personal data in them, found by Presidio's analyzer.

Without a spaCy model (none is downloaded) Presidio's pattern recognizers work on a blank pipeline: addresses
of mail and IP, phone numbers, IBANs, credit cards, and national numbers (PESEL, SSN, NIF, …), by form and,
where there is one, checksum. What they cannot find is what has no form: the names of people and places. A
spaCy model with named entities that is installed and named (`LLM_ASSETS_AUDIT_NER=en_core_web_lg`) finds
those as well.

Each finding becomes `<KIND:tag>`; the tag is a keyed hash, so the same address is the same tag in all that
was kept of one subject, and nothing once that subject's key is gone.
"""

import json
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from resources.audit.places import AuditError
from resources.audit.subject_keys import Subject

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine, EntityRecognizer
    from presidio_analyzer.nlp_engine import NlpEngine

LANGUAGE = "en"
"""A label for Presidio: every recognizer is told that it is for this one, so that all of them run."""
LEAST_SCORE = 0.3  # Presidio's own forms of a number without a checksum or a context word score 0.01 to 0.2
RECOGNIZERS = (
    *("CreditCardRecognizer", "CryptoRecognizer", "IbanRecognizer", "IpRecognizer", "MacAddressRecognizer"),
    *("UsSsnRecognizer", "UsItinRecognizer", "CaSinRecognizer", "PlPeselRecognizer", "EsNifRecognizer"),
    *("EsNieRecognizer", "ItFiscalCodeRecognizer", "UkNinoRecognizer", "NhsRecognizer", "DeTaxIdRecognizer"),
    *("DeSocialSecurityRecognizer", "FiPersonalIdentityCodeRecognizer", "SePersonnummerRecognizer"),
    *("TrNationalIdRecognizer", "KrRrnRecognizer", "InAadhaarRecognizer"),
    *("AuTfnRecognizer", "AuMedicareRecognizer", "SgFinRecognizer", "ThTninRecognizer"),
)
"""What names one person, by country. Left out are Presidio's forms of companies, cars and places."""
PHONE_REGIONS = (
    "US",
    "GB",
    "DE",
    "FR",
    "PL",
    "ES",
    "IT",
    "IN",
)  # national forms; with +… those of all countries
WINDOW_CHARACTERS, OVERLAP_CHARACTERS = 4_000, 200  # some of Presidio's patterns are quadratic
LEAST_NUMBER, LEAST_CHARACTERS = 10**6, 4  # below, nothing has a form
FAILED = "<NOT KEPT: the detector of personal data failed on this text>"

_loading = threading.Lock()

_log = logging.getLogger(__name__)


class Finding(NamedTuple):
    """Personal data in a text."""

    start: int
    end: int
    kind: str
    score: float


class Pseudonymizer:
    """Presidio, loaded when the first text comes (seconds, some 200 MB)."""

    def __init__(self, ner_model: str | None = None) -> None:
        self._ner_model = ner_model

    def __call__(self, text: str, subject: Subject) -> str:
        """A request's body keeps its form as JSON; anything else is taken as one text."""
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            return self._clean(text, subject)
        if isinstance(content, dict | list):
            return json.dumps(self._walk(content, subject), ensure_ascii=False)
        return self._clean(text, subject)

    def _walk(self, content: Any, subject: Subject) -> Any:
        if isinstance(content, str):
            return self._clean(content, subject)
        if isinstance(content, dict):
            return {self._name(name, subject): self._walk(value, subject) for name, value in content.items()}
        if isinstance(content, list):
            return [self._walk(value, subject) for value in content]
        if isinstance(content, int) and abs(content) >= LEAST_NUMBER:  # a PESEL may come as a number
            cleaned = self._clean(str(content), subject)
            return cleaned if cleaned != str(content) else content
        return content

    def _name(self, name: str, subject: Subject) -> str:
        """Of a member: looked at where it may be more than a word."""
        return self._clean(name, subject) if re.search(r"[@\d]", name) else name

    def _clean(self, text: str, subject: Subject) -> str:
        if len(text) < LEAST_CHARACTERS:
            return text
        analyzer = _analyzer(self._ner_model)
        try:
            found = [each for start in _windows(text) for each in _found(analyzer, text, start)]
        except Exception as error:  # noqa: BLE001  a text that breaks a detector must not stop the log, nor be kept
            _log.error("Presidio failed on a text of %d characters: %s", len(text), type(error).__name__)
            return FAILED
        return _replaced(text, found, subject)


def _windows(text: str) -> range:
    """Where to begin: every place lies in a window whole, with what is before and after it."""
    return range(0, max(len(text) - OVERLAP_CHARACTERS, 1), WINDOW_CHARACTERS - OVERLAP_CHARACTERS)


def _found(analyzer: "AnalyzerEngine", text: str, start: int) -> Iterator[Finding]:
    window = text[start : start + WINDOW_CHARACTERS]
    for each in analyzer.analyze(window, language=LANGUAGE, score_threshold=LEAST_SCORE):
        yield Finding(each.start + start, each.end + start, each.entity_type, each.score)


def _replaced(text: str, found: list[Finding], subject: Subject) -> str:
    """From the left; of two that overlap the better one, and what sticks out of it as well."""
    parts, at = [], 0
    for each in sorted(found, key=lambda one: (one.start, -one.score, -one.end)):
        if each.end <= at:
            continue
        parts.append(text[at : max(each.start, at)])
        parts.append(f"<{each.kind}:{subject.hash(text[max(each.start, at) : each.end])}>")
        at = each.end
    return "".join(parts) + text[at:]


def _analyzer(ner_model: str | None) -> "AnalyzerEngine":
    """The one of this process; several threads may ask at once."""
    with _loading:
        return _loaded(ner_model)


@cache
def _loaded(ner_model: str | None) -> "AnalyzerEngine":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # spaCy's, about click, while it is imported
        return _made(ner_model)


def _made(ner_model: str | None) -> "AnalyzerEngine":
    """Presidio with the recognizers above, and that of spaCy's entities where a model is named."""
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry, predefined_recognizers

    found = [getattr(predefined_recognizers, name)(supported_language=LANGUAGE) for name in RECOGNIZERS]
    found += [_mail_recognizer(), predefined_recognizers.PhoneRecognizer(supported_regions=PHONE_REGIONS)]
    if ner_model:
        found.append(predefined_recognizers.SpacyRecognizer(supported_language=LANGUAGE))
    registry = RecognizerRegistry(recognizers=found, supported_languages=[LANGUAGE])
    return AnalyzerEngine(registry=registry, nlp_engine=_pipeline(ner_model), supported_languages=[LANGUAGE])


def _pipeline(ner_model: str | None) -> "NlpEngine":
    """A blank one, or the model that is installed under that name; nothing is ever downloaded."""
    import spacy
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    if ner_model and not spacy.util.is_package(ner_model):
        raise AuditError(
            f"LLM_ASSETS_AUDIT_NER names the spaCy model {ner_model!r}, which is not installed: install its "
            "wheel, or leave the setting out and names of people are not found."
        )
    engine = SpacyNlpEngine(models=[{"lang_code": LANGUAGE, "model_name": ner_model or "blank"}])
    pipeline = spacy.load(ner_model) if ner_model else spacy.blank(LANGUAGE)
    engine.nlp = {LANGUAGE: pipeline}  # type: ignore[assignment]  # Presidio says None until it is loaded
    return engine


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
