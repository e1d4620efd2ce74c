"""The work order `merge`: base and adapter become the one folder that is served, and it answers.

Order: base_folder, adapter_folder, output_folder, template, recipe, questions, max_new_tokens;
optionally device, and dtype, the one that it will be served in (else that of its weights).
The merge is LLaMA-Factory's own export. A model that was trained in full is its own merged model.
"""

import json
import shutil
import time
from pathlib import Path

from llm_assets.workers import chat_template, greedy, machine, trained_files
from llm_assets.workers.reporting import Order, Report, Result, work

# What of a recipe shapes how a model is loaded and written; the rest is about training.
EXPORT_KEYS = (
    "add_special_tokens",
    "add_tokens",
    "default_system",
    "enable_thinking",
    "finetuning_type",
    "preserve_thinking",
    "resize_vocab",
    "rope_scaling",
    "split_special_tokens",
    "stage",
    "tool_format",
)
SHARD_GB = 5


def run(order: Order, report: Report) -> Result:
    """Leaves the merged model in output_folder, in Hugging Face form."""
    output = Path(order["output_folder"])
    shutil.rmtree(output, ignore_errors=True)
    machine.prepare(order.get("device", "cpu"), cache=output.parent / "cache")
    started = time.monotonic()
    trained = Path(order["adapter_folder"])
    if not (trained / trained_files.ADAPTER_CONFIG).is_file():
        trained_files.keep(trained, output, base_model=None)
        report.line("The model was trained in full: its weights are the merged model.")
    else:
        _export(order)
        report.line(f"Base model and adapter are merged ({time.monotonic() - started:.0f} s).")
    settled = chat_template.settle(output, order["template"], order["recipe"])
    settled.write(output)
    report.line(f"Chat template: {settled.origin}.")
    answers = _answers(order, output, report)
    return {
        "answers": answers,
        "dtype": weights_dtype(output),
        "chat_template": settled.origin,
        "seconds": round(time.monotonic() - started, 3),
        **machine.peak_memory(),
        "engine_versions": machine.engine_versions(),
    }


def weights_dtype(folder: Path) -> str:
    """The precision that a model's configuration gives for its weights, such as `bfloat16`."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return str(config.get("dtype") or config.get("torch_dtype") or "float32")


def _export(order: Order) -> None:
    from llamafactory.train.tuner import export_model

    recipe = {key: order["recipe"][key] for key in EXPORT_KEYS if key in order["recipe"]}
    export_model(
        recipe
        | {
            "model_name_or_path": order["base_folder"],
            "adapter_name_or_path": order["adapter_folder"],
            "template": order["template"],
            "export_dir": order["output_folder"],
            "export_size": SHARD_GB,
            "export_device": "cpu",
            "trust_remote_code": False,
        }
    )
    (Path(order["output_folder"]) / "Modelfile").unlink(missing_ok=True)


def _answers(order: Order, folder: Path, report: Report) -> list[greedy.Answer]:
    return greedy.answers(
        folder,
        chat_template.Encoding(folder, order["template"], order["recipe"]),
        order["questions"],
        max_new_tokens=order["max_new_tokens"],
        dtype=order.get("dtype", "auto"),
        report=report,
    )


if __name__ == "__main__":
    work(run)
