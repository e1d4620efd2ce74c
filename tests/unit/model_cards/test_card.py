"""The card says what the evidence says, in the Hub's format, the same bytes every time."""

import re
from collections.abc import Callable

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from huggingface_hub.utils import validate_repo_id
from hypothesis import given
from hypothesis import strategies as st

from llm_assets.model_cards import (
    Evidence,
    SampleAnswer,
    card_markdown,
    card_of,
    model_summary,
    version_summary,
)
from llm_assets.model_cards.header import HUB_LICENCES

Make = Callable[..., Evidence]


def first_screen(card: str) -> str:
    return ModelCard(card).text.split("## Results")[0]


def test_the_header_is_one_that_the_hub_accepts(evidence: Make) -> None:
    card = ModelCard(card_markdown(evidence()))
    header = card.data.to_dict()
    assert header["license"] in HUB_LICENCES
    assert header["pipeline_tag"] == "text-generation"
    for name in (header["base_model"], *header["datasets"]):
        validate_repo_id(name)
    name, measured = model_index_to_eval_results(header["model-index"])
    assert name == "support_bot of team-a"
    assert [(each.metric_type, each.metric_value) for each in measured] == [("loss", 1.4)]


def test_a_base_model_of_the_hub_is_linked_by_its_name_there(evidence: Make) -> None:
    card = ModelCard(
        card_markdown(evidence(base_source="hf://HuggingFaceTB/SmolLM2-135M-Instruct@" + "1" * 40))
    )
    assert card.data.to_dict()["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_a_tenant_that_the_hub_would_not_take_for_a_name_is_left_out_of_the_header(evidence: Make) -> None:
    assert "datasets" not in ModelCard(card_markdown(evidence(tenant="team--a"))).data.to_dict()


def test_a_licence_that_the_hub_does_not_list_is_other_with_its_name(evidence: Make) -> None:
    header = ModelCard(card_markdown(evidence(base_licence="Northwind-1.0"))).data.to_dict()
    assert (header["license"], header["license_name"]) == ("other", "Northwind-1.0")


def test_the_first_screen_says_what_for_whom_licence_risk_and_whether_it_is_good_enough(
    evidence: Make,
) -> None:
    shown = first_screen(card_markdown(evidence()))
    for said in (
        "support_bot of team-a",
        "Answers customers' questions",
        "team:northwind",
        "apache-2.0",
        "limited risk",
        "2 of 2 met",
    ):
        assert said in shown


def test_a_threshold_that_is_not_met_is_named(evidence: Make) -> None:
    card = evidence(eval_loss=2.5)
    assert "**not met**: loss on held-out rows" in first_screen(card_markdown(card))
    assert {each.metric: each.met for each in card_of(card).results} == {
        "eval_loss": False,
        "loss_drop": True,
        "final_loss": None,
    }


def test_a_threshold_without_a_measurement_is_not_met(evidence: Make) -> None:
    assert card_of(evidence(eval_loss=None)).results[0].met is False


def test_a_card_without_held_out_rows_or_base_licence_has_a_header_without_them(evidence: Make) -> None:
    header = ModelCard(card_markdown(evidence(eval_loss=None, base_licence=None))).data.to_dict()
    assert "model-index" not in header
    assert "license" not in header


def test_a_reward_model_is_no_text_generation_and_is_not_served(evidence: Make) -> None:
    card = card_markdown(evidence(recipe={"stage": "rm"}, serving_mode="none", answers=()))
    assert ModelCard(card).data.to_dict()["pipeline_tag"] == "text-classification"
    assert "| **Served** | no |" in card
    assert "What it answers" not in card


def test_the_picture_of_the_loss_is_a_file_beside_the_card(evidence: Make) -> None:
    assert "](training/curves.png)" in card_markdown(evidence())
    assert "curves.png" not in card_markdown(evidence(curves=False))


def test_the_same_evidence_gives_the_same_bytes(evidence: Make) -> None:
    assert card_markdown(evidence()) == card_markdown(evidence())
    assert card_of(evidence()) == card_of(evidence())


def test_a_card_holds_no_date_no_time_and_no_folder_of_this_machine(evidence: Make) -> None:
    card = card_markdown(evidence(base_source="file:/home/someone/models/smol"))
    assert not re.search(r"20\d\d-?[01]\d-?[0-3]\d", card)
    assert "/home" not in card
    assert "file:…/smol" in card


@pytest.mark.parametrize("field", ["base_licence", "base_parameters", "eval_loss", "flop", "train_seconds"])
def test_what_is_not_known_is_listed_and_never_invented(evidence: Make, field: str) -> None:
    card = card_of(evidence(**{field: None}))
    listed = {each.field: each for each in card.missing}
    assert listed[field].reference.startswith("Annex")
    assert "None" not in card_markdown(evidence(**{field: None}))


def test_no_answers_are_listed_as_missing(evidence: Make) -> None:
    assert "answers" in {each.field for each in card_of(evidence(answers=())).missing}


@given(st.text(max_size=200))
def test_no_answer_of_a_model_breaks_the_page(evidence: Make, text: str) -> None:
    card = evidence(answers=(SampleAnswer(question=f"Why {text}?", text=text),))
    page = ModelCard(card_markdown(card)).text
    assert "\n## Lineage\n" in page
    assert not re.search(r"<\w", page)
    answered = page.split("## What it answers")[1].split("## Intended use")[0]
    lines = [line for line in answered.split("\n") if line]
    assert all(line.startswith((">", "**Why")) for line in lines)


def test_the_registry_gets_summaries_in_markdown(evidence: Make) -> None:
    assert model_summary(evidence()).startswith("**support_bot of team-a**: Answers customers'")
    summary = version_summary(evidence())
    assert summary.startswith("Thresholds: 2 of 2 met.\n\n- Loss on held-out rows: 1.4 (at most 2)\n")
    assert "| Merged model | `" in summary
    assert re.search(r"\| Base model \| `(\w{12})` \| `sha256:\1\w+` \|", summary), "short and whole"
    assert summary.endswith("Not filled in: 5 fields of the model card.")
