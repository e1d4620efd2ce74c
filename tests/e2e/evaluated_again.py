"""What LLaMA-Factory says of the held-out rows with what was kept of a training, loaded anew.

Run in the train engine: `python -m tests.e2e.evaluated_again ORDERS.json LOSSES.json`. The orders are those
of trainings that are done; a loss is that of base and adapter, or of the model that was trained in full.
"""

import json
import sys
from pathlib import Path
from typing import Any

# What says how rows are read and what their loss is; the rest is about the training.
KEPT = (
    "stage",
    "finetuning_type",
    "cutoff_len",
    "add_tokens",
    "add_special_tokens",
    "resize_vocab",
    "lora_target",
)


def loss(order: dict[str, Any]) -> float:
    from llamafactory.train.tuner import run_exp

    from llm_assets.workers import machine

    folder = Path(order["scratch_folder"]).parent / "again"
    machine.prepare("cpu", cache=folder / "cache")
    recipe = {key: order["recipe"][key] for key in KEPT if key in order["recipe"]}
    full = recipe.get("finetuning_type") == "full"
    model = {"model_name_or_path": order["output_folder" if full else "base_folder"]}
    adapter = {} if full else {"adapter_name_or_path": order["output_folder"]}
    run_exp(
        recipe
        | model
        | adapter
        | {
            "template": order["template"],
            "dataset_dir": order["dataset_folder"],
            "eval_dataset": "held_out",
            "per_device_eval_batch_size": order["recipe"]["per_device_train_batch_size"],
            "do_train": False,
            "do_eval": True,
            "output_dir": str(folder),
            "report_to": "none",
            "use_cpu": True,
        }
    )
    return float(json.loads((folder / "eval_results.json").read_text())["eval_loss"])


if __name__ == "__main__":
    orders = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps([loss(order) for order in orders]))
