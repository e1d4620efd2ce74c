"""What a training wrote down as it went: its losses by step.

The source is the trainer's own history, which is part of every checkpoint; so after a resume there
is one line per step, where LLaMA-Factory's `trainer_log.jsonl` would hold the repeated ones twice.
The lines have its keys, without its clock times: equal trainings leave equal files.
"""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

History = Sequence[Mapping[str, Any]]
LEAST_LOSSES = 3

_NAMES = {
    "loss": "loss",
    "eval_loss": "eval_loss",
    "rewards/accuracies": "accuracy",
    "eval_rewards/accuracies": "eval_accuracy",
    "eval_accuracy": "eval_accuracy",
    "learning_rate": "lr",
    "epoch": "epoch",
    "num_input_tokens_seen": "total_tokens",
}


def lines(history: History, total_steps: int) -> list[dict[str, Any]]:
    """The history in LLaMA-Factory's terms; entries with neither loss nor evaluation are left out."""
    kept = []
    for entry in history:
        if "loss" in entry or "eval_loss" in entry:
            position = {"current_steps": entry["step"], "total_steps": total_steps}
            kept.append(position | {name: entry[key] for key, name in _NAMES.items() if key in entry})
    return kept


def write(path: Path, history: History, total_steps: int) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines(history, total_steps))
    path.write_text(text, encoding="utf-8")


def losses(history: History) -> list[tuple[int, float]]:
    """(step, training loss), each the mean since the one before."""
    return [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]


def eval_losses(history: History) -> list[tuple[int, float]]:
    """(step, loss on the held-out rows)."""
    return [(entry["step"], entry["eval_loss"]) for entry in history if "eval_loss" in entry]


def summary(history: History) -> dict[str, float | None]:
    """What the losses come down to. One batch alone is noise, so first and final loss are means.

    Returns:
        `first_loss` and `final_loss`: means over a tenth of the logged losses, at least `LEAST_LOSSES` of
        them where so many are there twice. `loss_noise`: the standard error of their difference, from how
        much the losses differ from one to the next (von Neumann's estimate, which a trend hardly touches).
        `eval_loss_before` and `eval_loss`: on the held-out rows, before the first step and at the end.
    """
    logged = [loss for _, loss in losses(history)]
    several = max(1, len(logged) // 10, min(LEAST_LOSSES, len(logged) // 2))
    held_out = eval_losses(history)
    return {
        "first_loss": _mean(logged[:several]),
        "final_loss": _mean(logged[-several:]),
        "loss_noise": _noise(logged, several),
        "eval_loss_before": next((loss for step, loss in held_out if step == 0), None),
        "eval_loss": held_out[-1][1] if held_out else None,
    }


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 6) if values else None


def _noise(logged: Sequence[float], several: int) -> float | None:
    """Von Neumann (1941): half the mean squared successive difference estimates the variance."""
    steps = [after - before for before, after in itertools.pairwise(logged)]
    if not steps:
        return None
    variance = sum(step * step for step in steps) / len(steps) / 2
    return round(math.sqrt(variance * 2 / several), 6)
