"""Every kind of recipe that `check` lets through trains, keeps what it trained, and is merged rightly."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llm_assets.assets.merged_models import verdict_of
from llm_assets.manifests import Merge
from tests.e2e.untied_model import untie
from tests.e2e.work_orders import INFO, KNOWN, TEMPLATE, Engine, rows, train_order, write_dataset
from tests.recipe_kinds import KINDS, MERGES, STAGES

pytestmark = pytest.mark.engine

HELD_OUT = [
    {"messages": [{"role": "user", "content": question}], "reply": answer}
    for question, answer in KNOWN.items()
]
# In bfloat16 the loss of the same weights differs so much between two ways of adding them up.
SAME_LOSS = 0.02
# What once came out otherwise than it was trained, or did not train at all.
SOME = [
    ("norms in float32", "sft", "tied"),
    ("pissa and dora", "sft", "tied"),
    ("pissa and lora on the input embeddings", "sft", "untied"),
    ("pissa and lora on the output embeddings", "sft", "untied"),
]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One training of one kind, on the tiny model with one tensor of embeddings, or two."""

    kind: str
    stage: str
    tied: bool
    folder: Path

    @property
    def recipe(self) -> dict[str, Any]:
        return {"stage": self.stage, "lora_target": "all", **KINDS[self.kind].recipe}

    def accepted(self, merge: str) -> bool:
        return not KINDS[self.kind].refused(stage=self.stage, merge=merge, mode="none", tied=self.tied)

    @property
    def is_evaluated_alike(self) -> bool:
        """Whether the engine evaluates what was kept as it did what it had trained: it loads adapters as its
        export does, compares preferences with what it loaded, and loads no base in fewer bits.
        """
        alike = self.stage in ("sft", "pt") and "quantization_bit" not in self.recipe
        return alike and self.accepted("export")

    def order(self, base: Path, dataset: Path) -> dict[str, Any]:
        return train_order(base, dataset, self.folder, num_train_epochs=4, logging_steps=1, **self.recipe)

    def merges(self, base: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        for merge in MERGES:
            if self.stage != "rm" and self.accepted(merge):
                yield (
                    merge,
                    {
                        "base_folder": str(base),
                        "adapter_folder": str(self.folder / "output"),
                        "output_folder": str(self.folder / merge),
                        "template": TEMPLATE,
                        "recipe": self.recipe,
                        "questions": ["Who are you?"],
                        "max_new_tokens": 8,
                        "held_out": HELD_OUT,
                        "merge": merge,
                    },
                )


def all_kinds() -> list[tuple[str, str, str]]:
    """Other stages on one base alone: what they do with embeddings is what sft does."""
    tied = [(kind, stage, "tied") for kind, stage in itertools.product(KINDS, STAGES)]
    return tied + [(kind, "sft", "untied") for kind in KINDS]


@pytest.mark.parametrize(
    "which", [SOME, pytest.param(all_kinds(), marks=pytest.mark.long)], ids=["some", "all"]
)
def test_what_check_lets_through_trains_and_is_kept_and_merged_as_it_was_trained(
    train_python: Path, tiny_model: Path, tmp_path: Path, which: list[tuple[str, str, str]]
) -> None:
    bases = {True: tiny_model, False: untie(tiny_model, tmp_path / "untied", train_python)}
    datasets = {stage: write_dataset(tmp_path / "data" / stage, stage, rows(stage)) for stage in INFO}
    cases = [
        Case(kind=kind, stage=stage, tied=base == "tied", folder=tmp_path / str(number))
        for number, (kind, stage, base) in enumerate(which)
    ]
    cases = [case for case in cases if any(map(case.accepted, MERGES))]
    engine = Engine(train_python, tmp_path)

    orders = [case.order(bases[case.tied], datasets[case.stage]) for case in cases]
    merges = [(case, *each) for case in cases for each in case.merges(bases[case.tied])]
    results = engine.work_in_one_process(
        *(("train", order) for order in orders), *(("merge", order) for _, _, order in merges)
    )
    trained, merged = results[: len(orders)], results[len(orders) :]
    assert failures(cases, trained) == []
    assert failures([case for case, *_ in merges], merged) == []
    verdicts = [verdict_of(Merge.model_validate(result)) for result in merged]
    wrong = [
        (case, merge, verdict.why)
        for (case, merge, _), verdict in zip(merges, verdicts, strict=True)
        if not verdict.holds
    ]
    assert wrong == []

    asked, losses = tmp_path / "trained.json", tmp_path / "losses.json"
    kept = [
        (case, order, result)
        for case, order, result in zip(cases, orders, trained, strict=True)
        if case.is_evaluated_alike
    ]
    asked.write_text(json.dumps([order for _, order, _ in kept]))
    engine.script("tests.e2e.evaluated_again", asked, losses)
    lost = [
        (case, result["eval_loss"], again)
        for (case, _, result), again in zip(kept, json.loads(losses.read_text()), strict=True)
        if abs(result["eval_loss"] - again) > SAME_LOSS
    ]
    assert lost == []


def failures(cases: list[Case], results: list[dict[str, Any]]) -> list[tuple[Case, str]]:
    return [
        (case, result["failure"]) for case, result in zip(cases, results, strict=True) if "failure" in result
    ]
