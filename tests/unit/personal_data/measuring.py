"""How much of the personal data in `texts/` is found, as the tables of docs/reference/personal-data.md.

python -m tests.unit.personal_data.measuring   # writes them into the page
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from resources.personal_data.detector import RECOGNIZERS, Detector
from resources.personal_data.findings import Finding
from resources.personal_data.national import IDENTIFIERS

HERE = Path(__file__).parent
PAGE = HERE.parents[2] / "docs" / "reference" / "personal-data.md"
LANGUAGES = {"pl": "Polish", "de": "German", "fr": "French", "en": "English"}
GROUPS = {
    "names": {"PERSON"},
    "addresses": {"ADDRESS"},
    "dates of birth": {"DATE_OF_BIRTH"},
    "contact data": {"EMAIL_ADDRESS", "PHONE_NUMBER", "IP_ADDRESS"},
}
NUMBERS = "numbers"
"""Every other kind: identifiers, accounts, cards."""
_MARK = re.compile(r"\[\[([A-Z_]+)\|([^\]]*)\]\]")


@dataclass(frozen=True, kw_only=True)
class Marked:
    """A text, and what is personal in it: kind, start, end."""

    text: str
    spans: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Of one language: by group, how many were found of how many; findings that are none, of all; missed."""

    found: dict[str, tuple[int, int]]
    false: int
    findings: int
    missed: tuple[str, ...]


def marked(language: str) -> list[Marked]:
    lines = yaml.safe_load((HERE / "texts" / f"{language}.yaml").read_text(encoding="utf-8"))
    return [_unmarked(line) for line in lines]


def measure(detector: Detector, texts: Iterable[Marked]) -> Measured:
    """A span is found where findings cover the whole of it; a finding is false where it touches no span."""
    found: dict[str, tuple[int, int]] = {}
    false, findings, missed = 0, 0, []
    for each in texts:
        here = list(detector.find(each.text))
        findings += len(here)
        false += sum(
            not any(start < one.end and one.start < end for _, start, end in each.spans) for one in here
        )
        for kind, start, end in each.spans:
            group = next((name for name, kinds in GROUPS.items() if kind in kinds), NUMBERS)
            well = _covered(here, each.text, start, end)
            hits, all_of = found.get(group, (0, 0))
            found[group] = hits + well, all_of + 1
            missed += [] if well else [f"{kind}: {each.text}"]
    return Measured(found=found, false=false, findings=findings, missed=tuple(missed))


def tables(detector: Detector) -> dict[str, str]:
    """By the name of the marker in the page."""
    return {"kinds": "\n".join(_kinds()), "measured": "\n".join(_measured(detector))}


def with_tables(page: str, made: dict[str, str]) -> str:
    for name, table in made.items():
        pattern = rf"(?s)(<!-- {name}: written by [^\n]* -->\n).*?(<!-- end -->)"
        told = table.replace("\\", "\\\\")
        page, count = re.subn(pattern, rf"\g<1>\n{told}\n\n\g<2>", page)
        assert count == 1, f"{PAGE} has no place for the table {name!r}"
    return page


def _unmarked(line: str) -> Marked:
    parts, spans, at = [], [], 0
    for mark in _MARK.finditer(line):
        parts.append(line[at : mark.start()])
        start = sum(map(len, parts))
        spans.append((mark[1], start, start + len(mark[2])))
        parts.append(mark[2])
        at = mark.end()
    return Marked(text="".join([*parts, line[at:]]), spans=tuple(spans))


def _covered(found: list[Finding], text: str, start: int, end: int) -> bool:
    return all(
        any(one.start <= at < one.end for one in found) for at in range(start, end) if text[at].isalnum()
    )


def _kinds() -> Iterator[str]:
    yield "| Kind | Country | What | Found |"
    yield "| --- | --- | --- | --- |"
    for each in IDENTIFIERS:
        how = ["by its form"] if getattr(each, "sure", True) else []
        words = (*getattr(each, "called", ()), *getattr(each, "words", ()))
        how += [f"near a word such as “{words[0]}”"] if words else []
        check = "; checked" if getattr(each, "check", True) else ""
        yield f"| `{each.kind}` | {each.country} | {each.name} | {' or '.join(how)}{check} |"
    yield f"\nFrom Presidio: {', '.join(f'`{name}`' for name in RECOGNIZERS)}, `EmailRecognizer`."


def _measured(detector: Detector) -> Iterator[str]:
    groups = [NUMBERS, *("contact data", "dates of birth", "addresses", "names")]
    assert set(groups) == {NUMBERS, *GROUPS}
    yield f"| Language | texts | {' | '.join(groups)} | false findings |"
    yield f"| --- | --- |{' --- |' * len(groups)} --- |"
    for code, name in LANGUAGES.items():
        texts = marked(code)
        result = measure(detector, texts)
        cells = [f"{hits} of {all_of}" for hits, all_of in map(result.found.__getitem__, groups)]
        yield f"| {name} | {len(texts)} | {' | '.join(cells)} | {result.false} of {result.findings} |"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), tables(Detector())), encoding="utf-8")
