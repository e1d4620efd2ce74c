"""A training's losses by step."""

import json
import random
import statistics
from pathlib import Path

import pytest

from llm_assets.workers import training_log

HISTORY = [
    *(
        {"step": step, "epoch": step / 20, "loss": 3.0 - step / 10, "learning_rate": 1e-3}
        for step in range(1, 21)
    ),
    {"step": 20, "epoch": 1.0, "eval_loss": 1.1, "eval_runtime": 0.5},
    {"step": 20, "epoch": 1.0, "train_runtime": 12.5, "train_loss": 1.9},
]


def logged(*losses: float) -> training_log.History:
    return [{"step": step, "loss": loss} for step, loss in enumerate(losses, start=1)]


@pytest.mark.parametrize(
    ("count", "several"), [(1, 1), (2, 1), (3, 1), (4, 2), (6, 3), (20, 3), (30, 3), (40, 4), (100, 10)]
)
def test_first_and_final_loss_are_means_over_a_tenth_and_at_least_three(count: int, several: int) -> None:
    found = training_log.summary(logged(*range(count)))
    assert found["first_loss"] == pytest.approx((several - 1) / 2)
    assert found["final_loss"] == pytest.approx(count - 1 - (several - 1) / 2)


def test_the_noise_is_the_standard_error_of_the_difference_of_both_means() -> None:
    draw = random.Random(1)
    trainings = [
        training_log.summary(logged(*(2 - step / 100 + draw.gauss(0, 0.1) for step in range(60))))
        for _ in range(300)
    ]
    falls = [float(each["final_loss"] or 0) - float(each["first_loss"] or 0) for each in trainings]
    told = [float(each["loss_noise"] or 0) for each in trainings]
    assert statistics.mean(told) == pytest.approx(statistics.stdev(falls), rel=0.15)


def test_the_held_out_loss_before_is_that_of_step_0_and_no_other() -> None:
    history = [{"step": step, "eval_loss": loss} for step, loss in ((0, 3.0), (10, 2.0), (20, 1.5))]
    assert training_log.summary(history)["eval_loss_before"] == 3.0
    assert training_log.summary(history[1:])["eval_loss_before"] is None
    assert training_log.summary(history)["eval_loss"] == 1.5


def test_a_training_without_losses_has_none() -> None:
    assert set(training_log.summary([]).values()) == {None}


def test_the_log_has_llama_factorys_keys_and_no_clock_times(tmp_path: Path) -> None:
    training_log.write(tmp_path / "trainer_log.jsonl", HISTORY, total_steps=20)
    lines = [json.loads(line) for line in (tmp_path / "trainer_log.jsonl").read_text().splitlines()]
    assert lines[0] == {"current_steps": 1, "total_steps": 20, "loss": 2.9, "lr": 1e-3, "epoch": 0.05}
    assert lines[-1] == {"current_steps": 20, "total_steps": 20, "eval_loss": 1.1, "epoch": 1.0}
    assert len(lines) == 21
