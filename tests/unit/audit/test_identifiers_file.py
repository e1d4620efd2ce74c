"""The operator's file of further identifiers, and what `llm-assets doctor` says of it."""

import json
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llm_assets.audit_log import sealer_of
from llm_assets.cli.main import app
from llm_assets.identifiers_file import read_identifiers
from llm_assets.installation.settings import Settings
from resources.audit.collecting import Collector
from resources.audit.personal_text import Pseudonymizer
from resources.audit.places import AuditError
from resources.audit.subject_keys import Subject, SubjectKeys
from resources.personal_data.detector import Detector
from tests.conftest import ROOT
from tests.unit.audit.conftest import Log

FILE = """
CZ_BIRTH_NUMBER:
  name: rodné číslo
  country: Czechia
  sure: ["######-####"]
  forms: ["##########"]
  words: [rodné, birth number]
  check: cz.rc
EMPLOYEE:
  name: number of our staff
  sure: [EMP-######]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "identifiers.yaml"
    path.write_text(FILE, encoding="utf-8")
    return path


@pytest.fixture
def subject(log: Log) -> Subject:
    return SubjectKeys(log.places.keys("team-a")).subject("somebody")


def test_what_the_operator_adds_is_found_beside_the_table(file: Path, subject: Subject) -> None:
    pseudonymize = Pseudonymizer(identifiers=lambda: read_identifiers(file))
    cleaned = pseudonymize("emp 123456, rodne cislo 7103192745, 710319/2745, PESEL 44051401359", subject)
    assert [part.split(":")[0] for part in cleaned.split("<")[1:]] == [
        *("EMPLOYEE", "CZ_BIRTH_NUMBER", "CZ_BIRTH_NUMBER", "PL_PESEL")
    ]
    assert pseudonymize("No. 7103192746", subject) == "No. 7103192746"


def test_the_page_s_own_example_is_such_a_file(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "reference" / "personal-data.md").read_text(encoding="utf-8")
    example = tmp_path / "example.yaml"
    example.write_text(page.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    found = list(Detector(identifiers=read_identifiers(example)).find("EMP-123456 and 710319/2745"))
    assert {each.kind for each in found} >= {"EMPLOYEE", "CZ_BIRTH_NUMBER"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("A: {name: a, sure: ['##']}", r"identifiers\.yaml:1: A: the form '##' is not taken; it is made of"),
        ("A:\n  name: a\n  sure: ['####']\n  chek: luhn", r"identifiers\.yaml:4: A\.chek: unknown field; "),
        ("A: {name: a, sure: ['####'], check: os}", r"'os' is no checksum of python-stdnum"),
        ("A: {name: a, sure: '####'}", r"A\.sure: "),
        ("A: text", r"identifiers\.yaml:1: A: 'text' is not a mapping"),
        ("a: {name: a, sure: ['####']}", r"kind 'a' is not taken; write it as CZ_BIRTH_NUMBER"),
        ("A: {name: a, forms: ['####']}", r"`forms` count only beside `words`"),
        ("A: {name: a, sure: ['(#+)+####']}", r"the form '\(#\+\)\+####' is not taken"),
        ("- a", r"identifiers\.yaml:1 cannot be read: the file is not a mapping"),
        ("", r"cannot be read: the file is empty"),
        ("A: {}\nA: {}", r"identifiers\.yaml:2 cannot be read: the key comes twice"),
    ],
)
def test_a_mistake_is_told_with_file_line_and_what_would_do(file: Path, content: str, told: str) -> None:
    file.write_text(content, encoding="utf-8")
    with pytest.raises(AuditError, match=told):
        read_identifiers(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match=r"LLM_ASSETS_PERSONAL_DATA: .*/none\.yaml cannot be read"):
        read_identifiers(tmp_path / "none.yaml")


def test_with_a_file_that_cannot_be_used_nothing_is_sealed_and_nothing_is_lost(
    log: Log, file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text("A: {}", encoding="utf-8")
    monkeypatch.setenv("LLM_ASSETS_PERSONAL_DATA", str(file))
    settings = Settings(root=ROOT, catalog=ROOT / "catalog", home=log.home)
    log.spool.exchange("team-a", risk_class="high", input="I am 44051401359", output="yes", subject="anna")
    with (
        closing(sealer_of(settings)) as sealer,
        closing(Collector(log.home / "gateway" / "spool", sealer, lambda: True)) as collector,
    ):
        collector.step()
        assert "identifiers.yaml:1: A.name: missing" in caplog.text
        assert not log.records()
        file.write_text(FILE, encoding="utf-8")
        collector.step()
    assert len(log.records()) == 1


def doctor() -> dict[str, str]:
    shown = CliRunner().invoke(app, ["doctor", "--json"])
    (found,) = (each for each in json.loads(shown.stdout) if each["what"] == "personal data")
    return found


def test_doctor_recommends_a_model_and_tells_of_one_that_is_missing_and_of_a_mistaken_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Recommended where a high-risk model answers people: spaCy's model" in doctor()["found"]
    monkeypatch.setenv("LLM_ASSETS_PERSONAL_DATA", str(file))
    assert doctor()["found"].startswith("identifiers by the table and 2 of yours")
    file.write_text("A: {}", encoding="utf-8")
    assert not doctor()["well"]
    assert "A.name: missing" in doctor()["remedy"]
    monkeypatch.delenv("LLM_ASSETS_PERSONAL_DATA")
    monkeypatch.setenv("LLM_ASSETS_AUDIT_NER", "spacy, xx_none,../x.y")
    assert doctor()["found"] == "no spaCy model xx_none, ../x.y"
