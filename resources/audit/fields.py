"""What of an event may stand in the clear, by its form.

What a client chose freely may be anything: a stop sequence with a name, a seed that is a PESEL, a path with
a mail address. So a value stands in the clear only in a form that can hardly be personal: a word of the
platform's own, a hash, an id that it made, a small number. Whatever has another form goes under the same
name into the part that its subject's key encrypts, and is erased with it.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from resources.names import MODEL, VERSION

Form = Callable[[Any], bool]

LONGEST = 512
"""Characters kept of a text that a client may choose freely."""
LARGE = 10**9 - 1
MADE_AT = re.compile(r"\d{8}T\d{6}\.\d{6}Z-[0-9a-f]{8}")
DIGITS = 6
"""A national number or that of a telephone has more; so has a fraction that hides one."""


def _text(pattern: str) -> Form:
    compiled = re.compile(pattern)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


def _whole(most: int) -> Form:
    return lambda value: type(value) is int and 0 <= value <= most


def _number(least: float, most: float) -> Form:
    """Of few digits: `0.7`, not `0.44051401359`."""

    def has_form(value: Any) -> bool:
        if type(value) not in (int, float) or not least <= value <= most:
            return False
        return len(re.sub(r"e.*|[^\d]", "", repr(value)).strip("0")) <= DIGITS

    return has_form


def _milliseconds(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= LARGE and round(value, 3) == value


def _name(pattern: str) -> Form:
    """Of the catalog's or the platform's making; but for a version's time, with few digits."""
    has_form = _text(pattern)

    def named(value: Any) -> bool:
        return has_form(value) and len(re.sub(r"\D", "", MADE_AT.sub("", value))) <= DIGITS

    return named


def _flag(value: Any) -> bool:
    return type(value) is bool


def _flag_or_whole(value: Any) -> bool:
    return type(value) is bool or _whole(1000)(value)


WORD = _text(r"[a-z][a-z_]{0,39}")
SHA256, DIGEST = _text(r"([0-9a-f]{64})?"), _text(r"sha256:[0-9a-f]{64}")
NAME, LABEL = _name(MODEL.pattern), _name(VERSION.pattern)

FORMS: Mapping[str, Form] = {
    "via": _text("key|jwt"),
    "key": _text("[a-z2-7]{12}"),
    "model": NAME,
    "version": LABEL,
    "deployment": LABEL,
    "digest": DIGEST,
    "served_digest": DIGEST,
    "risk_class": WORD,
    "stream": _flag,
    "input_sha256": SHA256,
    "output_sha256": SHA256,
    "input_bytes": _whole(LARGE),
    "output_bytes": _whole(LARGE),
    "status": lambda value: type(value) is int and 100 <= value <= 599,
    "prompt_tokens": _whole(LARGE // 10),
    "completion_tokens": _whole(LARGE // 10),
    "count": _whole(LARGE // 10),
    "finish_reason": WORD,
    "reason": WORD,
    "first_byte_ms": _milliseconds,
    "latency_ms": _milliseconds,
    "path": _text(r"(/t/[a-z0-9-]{1,63})?/v1/(chat/completions|completions|embeddings|responses|models)"),
}
"""Made by the gateway, or of the platform's own words. What is not here never stands in the clear."""

ASKED: Mapping[str, Form] = {
    "model": NAME,
    "key": FORMS["key"],
    "request": _text("(event-|unreadable-)?[0-9a-f-]{1,80}"),
}
"""What a search of the log asks for."""

SAMPLING: Mapping[str, Form] = {
    "temperature": _number(0, 100),
    "top_p": _number(0, 1),
    "min_p": _number(0, 1),
    "top_k": lambda value: value == -1 or _whole(10**6 - 1)(value),
    "max_tokens": _whole(10**7 - 1),
    "max_completion_tokens": _whole(10**7 - 1),
    "max_output_tokens": _whole(10**7 - 1),
    "min_tokens": _whole(10**7 - 1),
    "seed": _whole(10**DIGITS - 1),
    "n": _whole(10_000),
    "best_of": _whole(10_000),
    "presence_penalty": _number(-100, 100),
    "frequency_penalty": _number(-100, 100),
    "repetition_penalty": _number(0, 100),
    "logprobs": _flag_or_whole,
    "top_logprobs": _whole(1000),
    "dimensions": _whole(10**5),
}
"""The parameters of sampling, as vLLM takes them; `stop` is a text."""


def parted(
    event: Mapping[str, object], names: tuple[str, ...]
) -> tuple[dict[str, object], dict[str, object]]:
    """What of these fields stands in the clear (None in the place of the rest), and what is encrypted."""
    clear: dict[str, object] = {}
    hidden: dict[str, object] = {}
    for name in names:
        value = event.get(name)
        clear[name] = value if value is not None and _in_the_clear(event, name, value) else None
        if clear[name] is None and value is not None:
            hidden[name] = shortened(value)
    if isinstance(sampling := event.get("sampling"), dict) and "sampling" in names:
        clear["sampling"] = shown = {
            name: value for name, value in sampling.items() if fits(SAMPLING, name, value)
        }
        rest = {name: shortened(value) for name, value in sampling.items() if name not in shown}
        hidden = {name: value for name, value in hidden.items() if name != "sampling"}
        hidden |= {"sampling": rest} if rest else {}
    return clear, hidden


def fits(forms: Mapping[str, Form], name: str, value: Any) -> bool:
    """Whether this value may stand in the clear under this name."""
    return name in forms and forms[name](value)


def _in_the_clear(event: Mapping[str, object], name: str, value: Any) -> bool:
    model = event.get("model")
    if name == "requested":  # the tenant's own; behind the sign a version that answered
        known, _, version = str(value).partition("@")
        answered = event.get("version") is not None
        version_known = not version or (answered and (WORD(version) or version == event["version"]))
        return fits(FORMS, "model", model) and known == model and version_known
    if name == "path" and str(value).startswith("/t/"):
        return fits(FORMS, name, value) and str(value).split("/")[2] == event.get("tenant")
    return fits(FORMS, name, value)


def shortened(value: Any) -> Any:
    """A text, or what is written as one, of at most so many characters."""
    if isinstance(value, str):
        return value[:LONGEST]
    return value if len(repr(value)) <= LONGEST else repr(value)[:LONGEST]
