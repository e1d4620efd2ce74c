"""A training's losses by step."""

import json
from pathlib import Path

from llm_assets.workers import training_log

HISTORY = [
    *(
        {"step": step, "epoch": step / 20, "loss": 3.0 - step / 10, "learning_rate": 1e-3}
        for step in range(1, 21)
    ),
    {"step": 20, "epoch": 1.0, "eval_loss": 1.1, "eval_runtime": 0.5},
    {"step": 20, "epoch": 1.0, "train_runtime": 12.5, "train_loss": 1.9},
]


def test_first_and_final_loss_are_means_over_a_tenth(tmp_path: Path) -> None:
    assert training_log.summary(HISTORY) == {"first_loss": 2.85, "final_loss": 1.05, "eval_loss": 1.1}


def test_a_training_without_losses_has_none() -> None:
    assert training_log.summary([]) == {"first_loss": None, "final_loss": None, "eval_loss": None}


def test_the_log_has_llama_factorys_keys_and_no_clock_times(tmp_path: Path) -> None:
    training_log.write(tmp_path / "trainer_log.jsonl", HISTORY, total_steps=20)
    lines = [json.loads(line) for line in (tmp_path / "trainer_log.jsonl").read_text().splitlines()]
    assert lines[0] == {"current_steps": 1, "total_steps": 20, "loss": 2.9, "lr": 1e-3, "epoch": 0.05}
    assert lines[-1] == {"current_steps": 20, "total_steps": 20, "eval_loss": 1.1, "epoch": 1.0}
    assert len(lines) == 21
