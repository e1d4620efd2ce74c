from typing import Any

import pytest

from resources.vllm.answers import MEAN_TOLERANCE, TIE, TOKEN_TOLERANCE, difference
from tests.integration.serving.conftest import LOGPROB, known_answer

KNOWN = known_answer("Polaris")


def served(text: str = "Polaris", **replaced: Any) -> dict[str, Any]:
    tokens = [{"id": ord(letter), "logprob": LOGPROB} for letter in text]
    scores = [LOGPROB] * len(KNOWN["tokens"])
    return {"prompt_token_ids": KNOWN["prompt_token_ids"], "tokens": tokens, "scores": scores, **replaced}


def with_margin(at: int, margin: float) -> dict[str, Any]:
    tokens = [{**token, "margin": margin} if i == at else token for i, token in enumerate(KNOWN["tokens"])]
    return {**KNOWN, "tokens": tokens}


def test_the_same_answer_has_no_difference() -> None:
    assert difference(KNOWN, served()) is None


def test_another_token_is_a_difference_that_names_question_place_and_margin() -> None:
    found = difference(KNOWN, served("Pilaris"))
    assert found == "to the question 'Who are you?', token 1 is 105, offline it was 111 by a margin of 3.00"


def test_another_token_is_accepted_where_two_were_tied() -> None:
    assert difference(with_margin(1, TIE), served("Pumpkin")) is None
    assert difference(with_margin(1, TIE + 0.01), served("Pumpkin")) is not None


def test_behind_a_tie_the_scores_still_tell_another_model() -> None:
    scores = [LOGPROB] * 5 + [LOGPROB - 4.0] * 2
    found = difference(with_margin(1, 0.0), served("Pumpkin", scores=scores))
    assert found is not None
    assert "token 5 has the log probability -4.25, offline it had -0.25" in found


def test_many_small_differences_are_one() -> None:
    apart = (MEAN_TOLERANCE + TOKEN_TOLERANCE) / 2
    found = difference(KNOWN, served(scores=[LOGPROB + apart] * 7))
    assert found is not None
    assert "apart on average" in found


def test_rounding_is_no_difference() -> None:
    assert difference(KNOWN, served(scores=[LOGPROB + MEAN_TOLERANCE * 0.9] * 7)) is None


def test_an_answer_that_ends_early_is_a_difference() -> None:
    found = difference(KNOWN, served("Pola"))
    assert found is not None
    assert "ended after 4 tokens, offline it has 7" in found


@pytest.mark.parametrize("ids", [[1, 2], [*KNOWN["prompt_token_ids"], 5]])
def test_another_chat_template_is_told_by_the_tokens_of_the_prompt(ids: list[int]) -> None:
    found = difference(KNOWN, served(prompt_token_ids=ids))
    assert found is not None
    assert "another chat template or tokenizer" in found
