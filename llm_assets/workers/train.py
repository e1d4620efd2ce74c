"""The work order `train`: LLaMA-Factory trains an adapter (or a full model) from a dataset.

Order: base_folder, dataset_folder (its dataset_info.json names `train` and perhaps `held_out`),
output_folder, scratch_folder, recipe, template, device; optionally base_model, the name that
the adapter's configuration gives as its base. Goes on from the last whole checkpoint; stage `rm` and
PiSSA always start anew, because the engine cannot go on from their checkpoints.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from llm_assets.workers import (
    chat_template,
    checkpoints,
    curves,
    machine,
    masked_answers,
    pissa,
    trained_files,
    training_arguments,
    training_log,
)
from llm_assets.workers.reporting import Order, Report, Result, work

if TYPE_CHECKING:
    from llm_assets.workers.live_progress import LiveProgress


def run(order: Order, report: Report) -> Result:
    """Trains to the end and leaves the final weights in output_folder, curves and log in its `training/`."""
    training_arguments.check(order)
    scratch_folder = Path(order["scratch_folder"])
    training = checkpoints.identity(order["recipe"], order["template"], Path(order["dataset_folder"]))
    checkpoint = checkpoints.last_whole(scratch_folder, training)
    if checkpoint:
        report.line(f"Goes on from the checkpoint of step {checkpoint.step}.")
    for key in training_arguments.left_out(order):
        report.line(f"recipe.{key} is for GPUs: this training runs on the CPU, in float32.")

    machine.prepare(order["device"], cache=scratch_folder / "cache")
    if masked_answers.install(Path(order["dataset_folder"])):
        report.line("Some answers of the dataset are read and not learned from (`weight: 0`).")
    from llamafactory.train.tuner import run_exp

    from llm_assets.workers.live_progress import LiveProgress

    settled = chat_template.settle(Path(order["base_folder"]), order["template"], order["recipe"])
    report.line(f"Chat template: {settled.origin}.")
    live = LiveProgress(
        report,
        training=training,
        earlier_seconds=checkpoint.train_seconds if checkpoint else 0.0,
        float32=order["device"] == "cpu" and _needs_float32(order),
    )
    run_exp(training_arguments.arguments(order, checkpoint), callbacks=[live])
    _leave(order, live)
    settled.write(Path(order["output_folder"]))
    return _result(live, resumed_from_step=checkpoint.step if checkpoint else None)


def _needs_float32(order: Order) -> bool:
    """No CPU multiplies float32 by bfloat16."""
    return training_arguments.mixes_types(order) or not machine.has_fast_bfloat16()


def _leave(order: Order, live: "LiveProgress") -> None:
    output = Path(order["output_folder"])
    shutil.rmtree(output, ignore_errors=True)
    trained = Path(order["scratch_folder"])
    trained_files.keep(trained, output, order.get("base_model"))
    if pissa.begins_with_pissa(order):
        pissa.keep_converted(trained, output, order.get("base_model"))
    records = output / "training"
    records.mkdir()
    training_log.write(records / "trainer_log.jsonl", live.state.log_history, live.state.max_steps)
    curves.draw(records / "curves.png", live.state.log_history, "Loss by step")


def _result(live: "LiveProgress", *, resumed_from_step: int | None) -> Result:
    return {
        **training_log.summary(live.state.log_history),
        "steps": live.state.global_step,
        "tokens": int(live.state.num_input_tokens_seen),
        "flop": float(live.state.total_flos),
        "train_seconds": round(live.train_seconds, 3),
        **machine.peak_memory(),
        "engine_versions": machine.engine_versions(),
        "resumed_from_step": resumed_from_step,
    }


if __name__ == "__main__":
    work(run)
