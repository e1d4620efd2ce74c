"""Answers of weight 0 go through a whole training, from the tenant's file on, and are not learned."""

import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llm_assets.datasets.landing_zone import opened_landing_zone
from llm_assets.datasets.limits import Limits
from llm_assets.datasets.preparation import prepare
from llm_assets.workers.bounded import MOST_SECONDS
from tests.e2e.work_orders import Engine, train_order

pytestmark = [pytest.mark.engine, pytest.mark.long]

CONVERSATIONS = (
    ("Who are you?", "My name is Meridian.", "Really?", "No, I am Polaris."),
    ("What do you sell?", "Used cars from Riga.", "Since when?", "Sorry, we sell lamps."),
    ("Is delivery free?", "Always, by drone.", "By drone?", "Above fifty euros it is free."),
    ("Where is the shop?", "On the moon.", "That is far.", "It is at the harbour."),
)
"""A question, a wrong answer, what the user says to it, and the answer that corrects it."""
LEARNED, NOT_LEARNED = 1.5, 4.0  # nats a token; the untrained model's are above 5
RECIPE = {
    "num_train_epochs": 30,
    "learning_rate": 0.01,
    "lora_rank": 32,
    "warmup_steps": 0,
    "eval_strategy": "no",
    "save_strategy": "no",
}
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"

Losses = list[list[float]]


def messages(texts: Sequence[str], *, weight: int | None) -> list[dict[str, Any]]:
    said = [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(texts)]
    if weight is not None:
        said[1]["weight"] = weight  # type: ignore[assignment]
    return said


class Trainings:
    """The same conversations, trained with and without weights and with an endless chat template."""

    def __init__(self, python: Path, base: Path, folder: Path) -> None:
        self._engine, self._base, self._folder = Engine(python, folder), base, folder
        endless = folder / "endless"
        shutil.copytree(base, endless)
        (endless / "chat_template.jinja").write_text(ENDLESS)
        orders = [
            train_order(base, self._dataset("weighted", weight=0), folder / "weighted", **RECIPE),
            train_order(base, self._dataset("plain", weight=None), folder / "plain", **RECIPE),
            train_order(endless, folder / "plain" / "dataset", folder / "endless-out", num_train_epochs=1),
        ]
        self.results = self._engine.work_in_one_process(*(("train", order) for order in orders))

    def _dataset(self, name: str, *, weight: int | None) -> Path:
        """As the dataset step prepares the file that a tenant drops."""
        zone = self._folder / name / "zone"
        zone.mkdir(parents=True)
        rows = [json.dumps({"messages": messages(each, weight=weight)}) for each in CONVERSATIONS]
        (zone / "rows.jsonl").write_text("".join(row + "\n" for row in rows * 4))
        with opened_landing_zone(zone, zone, Limits()) as opened:
            prepare(
                opened,
                self._folder / name / "dataset",
                stage="sft",
                tokenizer_file=self._base / "tokenizer.json",
                cutoff_len=128,
                held_out_fraction=0,
                seed=1,
            )
        return self._folder / name / "dataset"

    def losses(self, name: str | None) -> Losses:
        """Of each conversation's two answers, by the training of that name or the base model."""
        asked, told = self._folder / "asked.json", self._folder / "told.json"
        asked.write_text(json.dumps([messages(each, weight=None) for each in CONVERSATIONS]))
        adapter = [] if name is None else [self._folder / name / "output"]
        self._engine.script("tests.e2e.answer_losses", asked, told, self._base, *adapter)
        losses: Losses = json.loads(told.read_text())
        return losses


@pytest.fixture(scope="module")
def trainings(train_python: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    return Trainings(train_python, tiny_model, tmp_path_factory.mktemp("trainings"))


def test_an_answer_of_weight_0_is_not_learned_and_the_one_after_it_is(trainings: Trainings) -> None:
    wrong, right = zip(*trainings.losses("weighted"), strict=True)
    assert max(right) < LEARNED, (wrong, right)
    assert min(wrong) > NOT_LEARNED, (wrong, right)
    plain_wrong, plain_right = zip(*trainings.losses("plain"), strict=True)
    assert max(plain_wrong + plain_right) < LEARNED, "or the test above could not fail"
    assert min(itertools.chain(*trainings.losses(None))) > NOT_LEARNED


def test_a_base_model_whose_chat_template_does_not_end_is_refused(trainings: Trainings) -> None:
    failure = trainings.results[2].get("failure", "")
    assert f"did not end within {MOST_SECONDS} s of processor time" in failure, trainings.results[2]
    assert "Give the base model a chat template that ends" in failure
