"""Texts without the personal data in them; `resources/personal_data/` finds it.

Each finding becomes `<KIND:tag>`; the tag is a keyed hash, so the same address is the same tag in all that
was kept of one subject, however it was written, and nothing once that subject's key is gone.
"""

import json
import logging
import re
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from resources.audit.places import AuditError
from resources.audit.subject_keys import Subject
from resources.personal_data.findings import Finding
from resources.personal_data.identifiers import Identifier

if TYPE_CHECKING:
    from resources.personal_data.detector import Detector

LEAST_NUMBER, LEAST_CHARACTERS = 10**6, 4  # below, nothing has a form
FAILED = "<NOT KEPT: the detector of personal data failed on this text>"

_log = logging.getLogger(__name__)


class Pseudonymizer:
    """A detector, loaded when the first text comes."""

    def __init__(
        self, models: Iterable[str] = (), identifiers: Callable[[], Iterable[Identifier]] = tuple
    ) -> None:
        self._models, self._identifiers = tuple(models), identifiers
        self._detector: Detector | None = None
        self._loading = threading.Lock()

    def __call__(self, text: str, subject: Subject) -> str:
        """A request's body keeps its form as JSON; anything else is taken as one text."""
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            return self._clean(text, subject)
        if isinstance(content, dict | list):
            return json.dumps(self._walk(content, subject), ensure_ascii=False)
        return self._clean(text, subject)

    def _walk(self, content: Any, subject: Subject, name: str = "") -> Any:
        """`name` is that of the member: `{"passport": "XS1234567"}` says what it holds."""
        if isinstance(content, str):
            return self._clean(content, subject, name)
        if isinstance(content, dict):
            return {
                self._name(name, subject): self._walk(value, subject, name) for name, value in content.items()
            }
        if isinstance(content, list):
            return [self._walk(value, subject, name) for value in content]
        if isinstance(content, float) and not content.is_integer():
            return content
        if isinstance(content, int | float) and abs(content) >= LEAST_NUMBER:  # a PESEL may come as a number
            written = f"{content:.0f}" if isinstance(content, float) else str(content)
            cleaned = self._clean(written, subject, name)
            return cleaned if cleaned != written else content
        return content

    def _name(self, name: str, subject: Subject) -> str:
        """Of a member: looked at where it may be more than a word."""
        return self._clean(name, subject) if re.search(r"[@\d\s]", name) else name

    def _clean(self, text: str, subject: Subject, about: str = "") -> str:
        if len(text) < LEAST_CHARACTERS:
            return text
        detector = self._loaded()
        try:
            found = list(detector.find(text, about))
        except Exception as error:  # noqa: BLE001  a text that breaks a detector must not stop the log, nor be kept
            _log.error("The detector failed on a text of %d characters: %s", len(text), type(error).__name__)
            return FAILED
        return _replaced(text, found, subject)

    def _loaded(self) -> "Detector":
        """The one of this object; several threads may ask at once."""
        from resources.personal_data.detector import Detector, MissingModelError

        with self._loading:
            if self._detector is None:
                try:
                    self._detector = Detector(models=self._models, identifiers=self._identifiers())
                except MissingModelError as error:
                    raise AuditError(str(error)) from error
            return self._detector


def _replaced(text: str, found: list[Finding], subject: Subject) -> str:
    """From the left; of two that overlap the better one, and what sticks out of it as well."""
    parts, at = [], 0
    for each in sorted(found, key=lambda one: (one.start, -one.score, -one.end)):
        if each.end <= at:
            continue
        parts.append(text[at : max(each.start, at)])
        value = each.value if each.start >= at else text[at : each.end]
        parts.append(f"<{each.kind}:{subject.hash(value)}>")
        at = each.end
    return "".join(parts) + text[at:]
