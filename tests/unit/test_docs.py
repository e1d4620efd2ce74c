"""The documents name what is there: settings, files, anchors."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_assets.installation.settings import KEYS, variable
from tests.conftest import ROOT

SETTING = re.compile(r"LLM_ASSETS_[A-Z]+(?:_[A-Z]+)*")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SETTINGS_PAGE = ROOT / "docs" / "reference" / "settings.md"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
THREATS = ROOT / "docs" / "explanation" / "threat-model.md"
NAMED_TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def code() -> Iterator[Path]:
    for folder in ("llm_assets", "resources", "images"):
        yield from (ROOT / folder).rglob("*.py")


def settings_that_are_read() -> set[str]:
    named = {name for file in code() for name in SETTING.findall(file.read_text())}
    return {name for name in named if not name.startswith("LLM_ASSETS_TEST")} | set(map(variable, KEYS))


def test_every_setting_that_the_code_reads_is_documented_and_no_other() -> None:
    read = settings_that_are_read()
    documented = set(SETTING.findall(SETTINGS_PAGE.read_text()))
    assert documented == read


def test_every_setting_that_a_page_names_is_read_by_something() -> None:
    read = settings_that_are_read()
    for page in PAGES:
        named = {name for name in SETTING.findall(page.read_text()) if not name.startswith("LLM_ASSETS_TEST")}
        assert named <= read, page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} in {page}"
        assert not anchor or anchor in headings(target), f"{link} in {page}"


def test_every_row_of_the_threat_model_names_tests_that_are_there() -> None:
    rows = [
        line for line in THREATS.read_text().splitlines() if line.startswith("|") and line.count("|") == 4
    ]
    threats = [row for row in rows if not row.startswith(("| What ", "| --- "))]
    assert len(threats) > 30
    for row in threats:
        named = NAMED_TEST.findall(row)
        assert named, f"no test is named: {row}"
        for file, name in named:
            defined = re.search(rf"^def {name}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE)
            assert defined, f"tests/{file} has no {name}"


def headings(page: Path) -> set[str]:
    """As GitHub makes anchors of them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
