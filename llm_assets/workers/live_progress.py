"""A training told while it runs: step, loss, time left; checkpoints sealed; divergence ends it.

A callback of transformers' Trainer, so nothing is read from logs. Imports the engine.
"""

import math
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from llm_assets.workers import checkpoints, reward_models
from llm_assets.workers.failures import WorkerError
from llm_assets.workers.reporting import Report

POINTS_PER_CURVE = 50
LINE_EVERY_S = 2.0
LINES_PER_EFOLD = 50


class LiveProgress(TrainerCallback):
    """Watches one training. Afterwards `state` is the trainer's and `train_seconds` counts all its tries."""

    def __init__(self, report: Report, *, training: str, earlier_seconds: float, float32: bool) -> None:
        self._report = report
        self._training = training
        self._earlier_seconds = earlier_seconds
        self._float32 = float32
        self._unsealed: Path | None = None
        self._last_line = 0.0
        self._last_text = ""
        self._first_step = 0
        self._started = time.monotonic()
        self._ended: float | None = None
        self._latest: dict[str, float] = {}
        self.state: Any = None

    @property
    def train_seconds(self) -> float:
        now = self._ended if self._ended is not None else time.monotonic()
        return self._earlier_seconds + now - self._started

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.state = state
        self._started = time.monotonic()
        self._first_step = state.global_step
        state.logging_steps = max(1, min(state.logging_steps, state.max_steps // POINTS_PER_CURVE))
        if self._float32:
            kwargs["model"].float()
        if reward_models.is_reward_model(kwargs["model"]):
            reward_models.complete(kwargs["model"])
        self._report.line(f"Trains {state.max_steps} steps over {state.num_train_epochs:g} epochs.")

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._seal()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The engine's own callbacks may still change the files, so the seal waits for the next event."""
        self._unsealed = Path(args.output_dir) / f"checkpoint-{state.global_step}"

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
        for name in ("loss", "eval_loss", "learning_rate"):
            if name in logs:
                self._latest[name] = float(logs[name])
        for name in ("loss", "eval_loss"):
            if name in logs and not math.isfinite(float(logs[name])):
                raise _diverged(name, logs[name], state)
        if "loss" in logs or "eval_loss" in logs:
            self._tell(state, always="eval_loss" in logs)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._ended = time.monotonic()
        self._seal()
        self._tell(state, always=True)
        evaluated = {entry["step"] for entry in state.log_history if "eval_loss" in entry}
        if state.global_step in evaluated and not args.load_best_model_at_end:
            args.do_eval = False  # the last step's evaluation is that of the final model: not twice

    def _seal(self) -> None:
        if self._unsealed is not None and self._unsealed.is_dir():
            step = int(self._unsealed.name.rpartition("-")[2])
            checkpoints.seal(
                self._unsealed, step=step, train_seconds=round(self.train_seconds, 3), training=self._training
            )
        self._unsealed = None

    def _tell(self, state: Any, *, always: bool) -> None:
        """Progress, and a line every two seconds at first, ever more seldom in a long training."""
        progress = self._progress(state)
        self._report.progress(progress, last=always)
        now = time.monotonic()
        due = now - self._last_line >= max(LINE_EVERY_S, (now - self._started) / LINES_PER_EFOLD)
        text = line(progress, evaluated=always)
        if (always or due) and text != self._last_text:
            self._last_line, self._last_text = now, text
            self._report.line(text)

    def _progress(self, state: Any) -> dict[str, Any]:
        done = state.global_step - self._first_step
        running = time.monotonic() - self._started
        left = (state.max_steps - state.global_step) * running / done if done else None
        return {
            "step": state.global_step,
            "total_steps": state.max_steps,
            "epoch": round(state.epoch or 0.0, 3),
            "tokens": int(state.num_input_tokens_seen),
            "elapsed_s": round(self.train_seconds, 1),
            "eta_s": None if left is None else round(left, 1),
            **self._latest,
        }


def _diverged(name: str, value: Any, state: Any) -> WorkerError:
    return WorkerError(
        f"The training diverged: {name} is {value} at step {state.global_step} of {state.max_steps}. Lower "
        "recipe.learning_rate, raise recipe.warmup_ratio, or look for odd rows in the dataset."
    )


def line(progress: dict[str, Any], *, evaluated: bool) -> str:
    """`step 12/63 loss 1.234 ETA 1m 20s`; with the held-out loss where it was just computed."""
    words = [f"step {progress['step']}/{progress['total_steps']}"]
    if "loss" in progress:
        words.append(f"loss {progress['loss']:.3f}")
    if evaluated and "eval_loss" in progress:
        words.append(f"held-out loss {progress['eval_loss']:.3f}")
    if progress["eta_s"] is not None and progress["step"] < progress["total_steps"]:
        words.append(f"ETA {duration(progress['eta_s'])}")
    return " ".join(words)


def duration(seconds: float) -> str:
    """`45s`, `1m 20s`, `2h 05m`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"
