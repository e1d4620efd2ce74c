"""What the AI Act asks for and nobody has filled in."""

from collections.abc import Callable
from dataclasses import fields

import pytest

from llm_assets.catalog.models import Card
from llm_assets.model_cards import Evidence, card_of
from llm_assets.model_cards.ai_act import ai_act, general_purpose_provider, missing
from llm_assets.model_cards.card import MissingField

Make = Callable[..., Evidence]


def listed(evidence: Make, **changed: object) -> dict[str, MissingField]:
    return {each.field: each for each in missing(evidence(**changed))}


def test_every_field_that_people_can_write_is_asked_for_and_no_other() -> None:
    assert {asked.field for asked in ai_act().written} == set(Card.model_fields)


def test_every_measured_field_is_a_field_of_the_evidence() -> None:
    assert {asked.field for asked in ai_act().measured} <= {field.name for field in fields(Evidence)}


def test_a_missing_field_says_why_it_matters_by_which_point_and_where_to_write_it(evidence: Make) -> None:
    limitations = listed(evidence)["limitations"]
    assert limitations.reference == "Annex IV, point 3"
    assert limitations.why.startswith("says ")
    assert limitations.remedy == "`card.limitations` in `catalog/models/support_bot.yaml`"


def test_a_field_of_blanks_is_missing(evidence: Make) -> None:
    assert "limitations" in listed(evidence, written={"limitations": "  \n"})


def test_what_was_written_is_not_missing_and_stands_in_the_card(evidence: Make) -> None:
    written = {"limitations": "It knows nothing after May."}
    assert "limitations" not in listed(evidence, written=written)
    assert card_of(evidence(written=written)).written[0].text == "It knows nothing after May."


def test_a_high_risk_model_is_asked_for_all_of_annex_iv(evidence: Make) -> None:
    limited, high = listed(evidence), listed(evidence, risk_class="high")
    assert set(limited) < set(high)
    points = {point for each in high.values() for point in range(1, 10) if f"point {point}" in each.reference}
    assert points >= {1, 2, 3, 4, 5, 6, 7, 8, 9}


def test_a_small_fine_tuning_does_not_make_a_provider_of_a_general_purpose_model(evidence: Make) -> None:
    rule = general_purpose_provider(evidence(flop=1e13))
    assert rule is not None
    assert not rule.exceeded
    assert rule.threshold_flop == pytest.approx(ai_act().general_purpose_provider.unknown_flop / 3)


def test_a_training_above_a_third_of_the_original_compute_does(evidence: Make) -> None:
    rule = general_purpose_provider(evidence(flop=4e21, base_flop=1e22))
    assert rule is not None
    assert rule.exceeded


def test_without_measured_compute_nothing_is_claimed(evidence: Make) -> None:
    assert general_purpose_provider(evidence(flop=None)) is None
