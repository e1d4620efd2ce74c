"""Presidio itself on texts, and what is kept of high-risk models."""

import json

import pytest

from resources.audit.personal_text import Pseudonymizer
from resources.audit.places import AuditError
from resources.audit.searching import Query, opened, search
from resources.audit.subject_keys import Subject, SubjectKeys
from resources.personal_data.detector import WINDOW_CHARACTERS
from tests.unit.audit.conftest import Log

PESEL, CARD, IBAN = "44051401359", "4111 1111 1111 1111", "PL61109010140000071219812874"
PERSONAL = {
    "EMAIL_ADDRESS": "jan.kowalski@example.com",
    "PL_PESEL": PESEL,
    "CREDIT_CARD": CARD,
    "IBAN_CODE": IBAN,
    "IP_ADDRESS": "203.0.113.77",
    "US_SSN": "536-90-4399",
    "PHONE_NUMBER": "+48 601 234 567",
}


@pytest.fixture(scope="module")
def pseudonymize() -> Pseudonymizer:
    return Pseudonymizer()


@pytest.fixture
def subject(log: Log) -> Subject:
    return SubjectKeys(log.places.keys("team-a")).subject("somebody")


@pytest.mark.parametrize("kind", PERSONAL)
def test_what_has_a_form_is_found_and_the_rest_of_the_text_stays(
    pseudonymize: Pseudonymizer, subject: Subject, kind: str
) -> None:
    text = f"Please look at {PERSONAL[kind]}, thank you."
    cleaned = pseudonymize(text, subject)
    assert PERSONAL[kind] not in cleaned
    assert cleaned.startswith(f"Please look at <{kind}:")
    assert cleaned.endswith(", thank you.")


def test_numbers_that_are_nobodys_stay(pseudonymize: Pseudonymizer, subject: Subject) -> None:
    text = "On 2026-11-22 order 12345678 cost 1,234.50 EUR; 44051401358 has a wrong checksum."
    assert pseudonymize(text, subject) == text


def test_the_same_address_of_one_subject_has_one_tag_and_another_subjects_has_another(
    pseudonymize: Pseudonymizer, log: Log
) -> None:
    keys = SubjectKeys(log.places.keys("team-a"))
    text = "Mail to ada@example.com"
    one, two = keys.subject("one"), keys.subject("two")
    assert pseudonymize(text, one) == pseudonymize(text, one)
    assert pseudonymize(text, one) != pseudonymize(text, two)


def test_a_body_stays_json_and_numbers_in_it_are_looked_at(
    pseudonymize: Pseudonymizer, subject: Subject
) -> None:
    body = {"model": "m", "seed": int(PESEL), "max_tokens": 64, "messages": [{"content": f"I am {PESEL}"}]}
    body |= {"metadata": {"ada@example.com": 1}}
    cleaned = json.loads(pseudonymize(json.dumps(body), subject))
    assert "ada@" not in json.dumps(cleaned)
    assert PESEL not in json.dumps(cleaned)
    assert (cleaned["model"], cleaned["max_tokens"]) == ("m", 64)


def test_a_number_has_one_tag_in_every_writing(pseudonymize: Pseudonymizer, subject: Subject) -> None:
    written = ("PL61 1090 1014 0000 0712 1981 2874", IBAN.lower(), "\u200b".join(IBAN))
    assert len({pseudonymize(f"pay to {one} today", subject) for one in written}) == 1


def test_a_member_s_name_tells_what_its_value_is(pseudonymize: Pseudonymizer, subject: Subject) -> None:
    numbers = {"nip": 8567346215, "passport": "XS1234567", "pesel": float(PESEL), "order": 8567346216}
    arguments = {"function": {"arguments": json.dumps(numbers)}}
    for body in (numbers, {"tools": [numbers]}, arguments):
        cleaned = pseudonymize(json.dumps(body), subject)
        assert not [number for number in ("8567346215", "XS1234567", PESEL) if number in cleaned]
        assert "8567346216" in cleaned


@pytest.mark.parametrize("before", [0, 3_780, 3_795, 3_990, 7_600])
def test_an_address_is_found_wherever_it_stands_in_a_long_text(
    pseudonymize: Pseudonymizer, subject: Subject, before: int
) -> None:
    text = ("a b c d e " * WINDOW_CHARACTERS)[:before] + f" {CARD} " + "f g h i j " * 500
    cleaned = pseudonymize(text, subject)
    assert CARD not in cleaned
    assert cleaned.endswith(" f g h i j ")
    assert cleaned.count("<") == 1


def test_a_model_that_is_not_installed_is_named_and_nothing_is_downloaded(subject: Subject) -> None:
    with pytest.raises(AuditError, match="'xx_no_such_model', which is not installed"):
        Pseudonymizer(["xx_no_such_model"])("some text", subject)


def test_texts_of_high_risk_models_are_kept_encrypted_and_without_personal_data(log: Log) -> None:
    text = f"Applicant {PERSONAL['EMAIL_ADDRESS']}, PESEL {PESEL}, wants a loan."
    body = json.dumps({"messages": [{"role": "user", "content": text}]})
    log.fill(1, risk_class="high", input=body, output=f"Refused, see {IBAN}.", subject="anna")
    (sealed,) = log.records()
    assert "wants a loan" not in json.dumps(sealed)
    keys = SubjectKeys(log.places.keys("team-a"))
    keys.begin()
    (found,) = search(log.places, log.sealer.index, Query(tenant="team-a", subject="anna"))
    personal = opened(found, keys)["personal"]
    assert personal["subject"] == "anna"
    said = json.loads(personal["input"])["messages"][0]["content"]
    assert said.endswith("wants a loan.")
    assert PESEL not in said
    assert personal["output"].startswith("Refused, see <IBAN_CODE:")
