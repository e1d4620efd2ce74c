"""LLaMA-Factory's own export: the reference that the streamed merge is compared with, and its tokenizer."""

import shutil
from pathlib import Path
from typing import Any

from llm_assets.workers.reporting import Order

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
# With these the merged model has other tensors than the base: only the export makes them.
RESIZING_KEYS = ("add_special_tokens", "add_tokens", "resize_vocab")
SHARD_GB = 5
MODEL_FILES = {"config.json", "generation_config.json", "model.safetensors.index.json"}


def resizes_vocabulary(order: Order) -> bool:
    return any(order["recipe"].get(key) for key in RESIZING_KEYS)


def export(order: Order) -> None:
    """Merges by loading the whole model, and leaves it in output_folder."""
    from llamafactory.train.tuner import export_model

    output = Path(order["output_folder"])
    shutil.rmtree(output, ignore_errors=True)
    export_model(_arguments(order))
    (output / "Modelfile").unlink(missing_ok=True)


def write_tokenizer(order: Order) -> None:
    """Leaves in output_folder the tokenizer that the export would, in place of the base's."""
    from llamafactory.data import get_template_and_fix_tokenizer
    from llamafactory.hparams import get_infer_args
    from llamafactory.model import load_tokenizer

    model_args, data_args, _, _ = get_infer_args(_arguments(order))
    module = load_tokenizer(model_args)
    tokenizer = module["tokenizer"]
    get_template_and_fix_tokenizer(tokenizer, data_args)
    tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "left"  # as export_model has it
    output = Path(order["output_folder"])
    for file in output.iterdir():
        if file.suffix != ".safetensors" and file.name not in MODEL_FILES:
            file.unlink()
    tokenizer.save_pretrained(output)
    if module["processor"] is not None:
        module["processor"].save_pretrained(output)


def _arguments(order: Order) -> dict[str, Any]:
    recipe = {key: order["recipe"][key] for key in EXPORT_KEYS if key in order["recipe"]}
    return recipe | {
        "model_name_or_path": order["base_folder"],
        "adapter_name_or_path": order["adapter_folder"],
        "template": order["template"],
        "export_dir": order["output_folder"],
        "export_size": SHARD_GB,
        "export_device": "cpu",
        "trust_remote_code": False,
    }
