"""PiSSA: an adapter that begins as the base's principal components, made an ordinary LoRA adapter.

PEFT takes the first state out of the base's weights (arXiv 2404.02948). Whoever loads the adapter as it was
trained has to do that again, by a decomposition that starts from random numbers: it comes out otherwise, and
so does an export (mean KL 0.3). The engine can write the difference to the first state instead, an
adapter of twice the rank that belongs to the untouched base. It takes the first state anew where a training
goes on from a checkpoint, so such a training always starts anew.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from llm_assets.workers import trained_files
from llm_assets.workers.failures import WorkerError
from llm_assets.workers.merging.adapters import ADAPTER_WEIGHTS
from llm_assets.workers.reporting import Order

if TYPE_CHECKING:
    from torch import Tensor

CONVERTED = "pissa_converted"  # LLaMA-Factory's folder in output_dir
# Factors are converted; of embeddings that LoRA changes PEFT saves the base's weights beside them, and PiSSA
# took its first state out of those.
LEFT_OUT = (".lora_A.", ".lora_B.", ".base_layer.")
EMBEDDING_RANKS = {".lora_embedding_A": 0, ".lora_embedding_B": 1}  # which dimension is the rank


def begins_with_pissa(order: Order) -> bool:
    return bool(order["recipe"].get("pissa_init"))


def keep_converted(trained: Path, output: Path, base_model: str | None) -> None:
    """Puts the converted adapter into `output`, with what else was trained, which the engine leaves out."""
    from safetensors.torch import load_file, save_file

    converted = trained / CONVERTED
    if not converted.is_dir():
        raise WorkerError(f"The engine left no {CONVERTED} in {trained}: its PiSSA adapter is not converted.")
    whole = {name: _as_wide(name, tensor) for name, tensor in load_file(trained / ADAPTER_WEIGHTS).items()}
    trained_files.keep(converted, output, base_model)
    others = {name: tensor for name, tensor in whole.items() if not any(each in name for each in LEFT_OUT)}
    if others:
        weights = load_file(output / ADAPTER_WEIGHTS) | others
        (output / ADAPTER_WEIGHTS).unlink()  # it may be a link to the engine's own file
        save_file(weights, output / ADAPTER_WEIGHTS, metadata={"format": "pt"})


def _as_wide(name: str, tensor: "Tensor") -> "Tensor":
    """LoRA of embeddings begins at nothing, so its difference is itself; zeros give it the converted rank."""
    import torch

    for part, dimension in EMBEDDING_RANKS.items():
        if part in name:
            return torch.cat([tensor, torch.zeros_like(tensor)], dim=dimension)
    return tensor
