"""What the catalog says of a base model against what was fetched."""

import json
from pathlib import Path
from typing import Any

import pytest

from llm_assets.assets.base_models import refuse_other_facts
from llm_assets.catalog.base_models import BaseModelEntry
from resources.base_models.error import BaseModelSourceError
from resources.base_models.folders import BaseModelFacts

FACTS = {"context_length": 8192, "tied_embeddings": True}


def entry(**declared: Any) -> BaseModelEntry:
    return BaseModelEntry(
        name="smollm2",
        source="gguf:model.gguf",
        licence="apache-2.0",
        template="smollm2",
        owner="team:platform",
        description="A small model.",
        **declared,
    )


def facts_of(changed: dict[str, Any]) -> BaseModelFacts:
    known = json.loads((Path(__file__).parents[1] / "manifests" / "base_model.json").read_text())["facts"]
    return BaseModelFacts(**known | changed)


@pytest.mark.parametrize("declared", [{}, {"context_length": 8192}, FACTS])
def test_what_is_left_out_or_right_is_taken(declared: dict[str, Any]) -> None:
    refuse_other_facts(entry(**declared), facts_of(FACTS))


@pytest.mark.parametrize(
    ("declared", "facts", "expected"),
    [
        ({"context_length": 4096}, FACTS, "by its config.json context_length is 8192, not 4096"),
        ({"tied_embeddings": False}, FACTS, "by its config.json tied_embeddings is True, not False"),
        ({"context_length": 8192}, FACTS | {"context_length": None}, "context_length is None, not 8192"),
        (
            {"context_length": 4096, "tied_embeddings": False},
            FACTS,
            "context_length is 8192, not 4096 and tied_embeddings is True, not False",
        ),
    ],
)
def test_what_the_model_does_not_bear_out_is_refused_with_both_values(
    declared: dict[str, Any], facts: dict[str, Any], expected: str
) -> None:
    with pytest.raises(BaseModelSourceError, match=r"base_models/smollm2\.yaml does not describe") as caught:
        refuse_other_facts(entry(**declared), facts_of(facts))
    assert expected in str(caught.value)
