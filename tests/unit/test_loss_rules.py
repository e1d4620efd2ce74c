"""The rule on generated loss curves: how often it is wrong about noise, and what it notices."""

import math
import random
from collections.abc import Callable, Iterator

import pytest

from llm_assets.catalog.models import Thresholds
from llm_assets.loss_rules import LOSSES, found_fall, missed_fall
from llm_assets.workers import training_log

CURVES = 500
LENGTHS = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 50, 100)  # logged losses
LEVEL, NOISE = 1.6, 0.05
FALSE_ALARMS = 0.012  # 6 of 500: the rate itself is below 0.007 for each noise and length

Noise = Callable[[random.Random], float]
NOISES: dict[str, Noise] = {
    "normal": lambda draw: draw.gauss(0, 1),
    "uniform": lambda draw: draw.uniform(-1, 1),
    "a few rows of great loss": lambda draw: draw.lognormvariate(0, 1),
    "laplace": lambda draw: draw.expovariate(1) - draw.expovariate(1),
}
Trend = Callable[[float], float]
"""Of the share of the training that is over, from 0 to 1, to the loss without noise."""


def curves(length: int, trend: Trend, noise: Noise = NOISES["normal"]) -> Iterator[dict[str, float | None]]:
    draw = random.Random(length)
    for _ in range(CURVES):
        losses = (trend(step / max(1, length - 1)) + NOISE * noise(draw) for step in range(length))
        yield training_log.summary([{"step": n, "loss": loss} for n, loss in enumerate(losses, start=1)])


def share_missed(asked: Thresholds, found: Iterator[dict[str, float | None]]) -> float:
    return sum(missed_fall(asked, each) is not None for each in found) / CURVES


@pytest.mark.parametrize("name", NOISES)
@pytest.mark.parametrize("length", LENGTHS)
def test_a_flat_noisy_training_of_any_length_is_hardly_ever_refused(length: int, name: str) -> None:
    found = curves(length, lambda _: LEVEL, NOISES[name])
    assert share_missed(Thresholds(), found) <= FALSE_ALARMS


@pytest.mark.parametrize("length", LENGTHS)
def test_a_noisy_training_that_falls_is_never_refused(length: int) -> None:
    assert share_missed(Thresholds(), curves(length, lambda over: LEVEL - 0.2 * over)) <= FALSE_ALARMS / 10


@pytest.mark.parametrize(
    ("trend", "noticed_from"),
    [
        pytest.param(lambda over: LEVEL * (1 + over / 4), 10, id="rises by a quarter"),
        pytest.param(lambda over: LEVEL * (1 + 2 * over), 5, id="trebles"),
        pytest.param(
            lambda over: LEVEL - over if over < 0.8 else LEVEL + 4 * (over - 0.7) / 0.3,
            15,
            id="falls, then diverges in the last fifth",
        ),
        pytest.param(
            lambda over: LEVEL + 2 * over * (over - 0.5), 8, id="falls, then rises above where it began"
        ),
    ],
)
@pytest.mark.parametrize("length", LENGTHS)
def test_a_training_that_gets_worse_is_noticed(length: int, trend: Trend, noticed_from: int) -> None:
    """From so many logged losses on; in fewer it may be noise for all that anybody can tell."""
    missed = share_missed(Thresholds(), curves(length, trend))
    assert missed >= 0.99 if length >= noticed_from else missed < 0.99


@pytest.mark.parametrize("length", [each for each in LENGTHS if each >= 4])
def test_a_fall_that_the_model_asks_for_is_demanded_and_a_clear_one_is_never_refused(length: int) -> None:
    asked = Thresholds(min_loss_drop=0.3)
    assert share_missed(asked, curves(length, lambda _: LEVEL)) >= 0.99
    assert share_missed(asked, curves(length, lambda over: LEVEL * (1 - min(0.6, over)))) <= FALSE_ALARMS


def test_what_four_short_trainings_wrote_is_noise() -> None:
    """The curve that was refused: 1.569 at first, 1.585 at the end."""
    losses = (1.569, 1.612, 1.548, 1.571, 1.603, 1.559, 1.566, 1.585)
    measured = training_log.summary([{"step": n, "loss": loss} for n, loss in enumerate(losses, start=1)])
    assert missed_fall(Thresholds(), measured) is None
    said = found_fall(Thresholds(), measured)
    assert said.startswith("The training loss went from 1.576 to 1.57; a fall of at least 0% is asked for; ")
    assert said.endswith("are noise.")


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_did_not_fall(loss: float) -> None:
    measured = {"first_loss": 1.0, "final_loss": loss, "loss_noise": 0.1}
    assert missed_fall(Thresholds(), measured)
    assert missed_fall(Thresholds(), measured | {"loss_noise": math.nan})


def test_the_held_out_loss_is_compared_with_itself_before_without_any_noise() -> None:
    asked = Thresholds(loss="held_out", min_loss_drop=0.1)
    rising_training = {"first_loss": 1.0, "final_loss": 9.0, "loss_noise": 0.0}
    well = rising_training | {"eval_loss_before": 2.0, "eval_loss": 1.7}
    assert missed_fall(asked, well) is None
    assert found_fall(asked, well) == (
        "The held-out loss went from 2 to 1.7; a fall of at least 10% is asked for."
    )
    worse = well | {"eval_loss": 1.9}
    assert missed_fall(asked, worse) == "the held-out loss went from 2 to 1.9, not down by 10%"
    assert "no held-out loss before and after the training was recorded" in str(
        missed_fall(asked, rising_training)
    )


def test_a_model_that_asks_for_nothing_is_asked_for_nothing() -> None:
    asked = Thresholds(loss="none")
    assert missed_fall(asked, {"first_loss": 1.0, "final_loss": 9.0}) is None
    assert "thresholds.loss: none" in found_fall(asked, {})
    assert missed_fall(Thresholds(), {}) is None
    assert "no training loss was recorded" in found_fall(Thresholds(), {}).lower()
    assert missed_fall(Thresholds(min_loss_drop=0.1), {}) == "no training loss was recorded"


def test_every_loss_that_a_training_measures_has_its_name_here() -> None:
    assert set(training_log.summary([])) == set(LOSSES)
