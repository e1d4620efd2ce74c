"""Each kind of recipe over every stage, merge, mode and base: what `check` refuses, and nothing else."""

import itertools
from typing import Any

import pytest

from llm_assets.catalog.limits import BaseLimits, recipe_beyond
from llm_assets.catalog.models import ModelEntry, misfits
from llm_assets.catalog.recipes import UNSUPPORTED, check_arguments
from tests.catalogs import model
from tests.recipe_kinds import KINDS, MERGES, MODES, STAGES, Kind


def named(recipe: dict[str, Any], *, merge: str, mode: str, tied: bool) -> set[str]:
    """The keys that `check` names."""
    entry = ModelEntry.model_validate({**model("base", mode=mode), "name": "bot", "merge": merge})
    checked = check_arguments(recipe)
    limits = BaseLimits(tied_embeddings=tied)
    problems = [*checked.problems, *misfits(entry, checked.arguments)]
    problems += recipe_beyond(checked.arguments, entry, limits)
    assert all(each.valid for each in problems), "each says what helps"
    return {str(each.place[0]) for each in problems}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_recipe_is_refused_by_the_key_that_a_later_step_would_fail_at_and_by_no_other(kind: Kind) -> None:
    for stage, merge, mode, tied in itertools.product(STAGES, MERGES, MODES, (True, False)):
        recipe = {"stage": stage, **kind.recipe}
        found = named(recipe, merge=merge, mode=mode, tied=tied)
        assert found == kind.refused(stage=stage, merge=merge, mode=mode, tied=tied), (
            stage,
            merge,
            mode,
            tied,
        )


@pytest.mark.parametrize(
    ("key", "value"), [("finetuning_type", "oft"), ("finetuning_type", "freeze"), ("stage", "ppo")]
)
def test_what_only_llama_factory_takes_is_refused_with_the_reason(key: str, value: str) -> None:
    [problem] = check_arguments({key: value}).problems
    assert problem.problem == f"{value!r} is not supported: {UNSUPPORTED[value]}"
    assert "sft" in problem.valid or "lora or full" in problem.valid
