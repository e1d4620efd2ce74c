"""Input and output embeddings that are one tensor in the base, and two in the merged model.

PEFT trains them apart: base and adapter have two tensors, so the merged model has two as well, and its
configuration says `tie_word_embeddings: false`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llm_assets.workers.failures import WorkerError
from llm_assets.workers.merging.adapters import ADAPTER_WEIGHTS, Adapter
from llm_assets.workers.merging.base_models import CONFIG, Base, embedding_kind, read_base, same_bytes
from llm_assets.workers.merging.weight_files import Tensor, read_layout

# vLLM 0.32 multiplies by these models' input embeddings whatever tie_word_embeddings says (read in
# vllm/model_executor/models): what was trained of their output embeddings alone would not be served.
TIED_IN_VLLM = frozenset(
    {
        "cohere",
        "cohere2",
        "cohere2_moe",
        "gemma2",
        "gemma3n",
        "gemma3n_text",
        "lfm2",
        "lfm2_moe",
        "zamba2",
    }
)


def why_not_served_untied(config: Mapping[str, Any]) -> str | None:
    """Why a model of this configuration (config.json) cannot be served with two tensors of embeddings."""
    kind = str(config.get("model_type"))
    return f"vLLM serves no {kind} model with two" if kind in TIED_IN_VLLM else None


def require_served_untied(base: Base, adapter: Adapter, changed: Tensor) -> None:
    """Raises WorkerError where vLLM would take the input embeddings for both."""
    if why := why_not_served_untied(base.config):
        raise WorkerError(
            f"{adapter.weights.path}: {changed.name} changes one of input and output embeddings, which are "
            f"one tensor in the base model, and {why}. Train without the embeddings (lora_target, "
            "additional_target), or start from a base with untied ones."
        )


def saved_alike(adapter: Adapter, saved: Mapping[str, Tensor | None]) -> Tensor | None:
    """The output embeddings that were saved whole, where the input embeddings came out the same.

    `saved` has all that the adapter changes of embeddings by name, None where that is LoRA. They are the
    same with PEFT's `ensure_weight_tying`.
    """
    wholes = {embedding_kind(name): tensor for name, tensor in saved.items()}
    one, other = wholes.get("input"), wholes.get("output")
    path = adapter.weights.path
    if one and other and len(saved) == 2 and same_bytes((path, one), (path, other)):
        return other
    return None


def added_output(base: Base, embeddings: Sequence[str]) -> Tensor:
    """The merged model's output embeddings where the base has one tensor for both."""
    source = base.input_embeddings
    if source is None:
        raise WorkerError(f"{base.folder} has no tensor of input embeddings. Fetch the base model again.")
    said = [name.removesuffix(".weight") for name in embeddings if embedding_kind(name) == "output"]
    module = said[0] if said else "embed_out" if "embed_in" in source.name else "lm_head"
    return replace(source, name=f"{module}.weight")


def untied(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration, also of a language model within a larger one, with two tensors of embeddings."""
    inner = {key: untied(value) for key, value in config.items() if key == "text_config"}
    return {**config, **inner, "tie_word_embeddings": False}


def check_export(base_folder: Path, adapter_folder: Path) -> None:
    """Refuses what an export gets wrong.

    Raises:
        WorkerError: There is LoRA on one of two tied embeddings, and PEFT's merge adds it to both.
    """
    path = adapter_folder / ADAPTER_WEIGHTS
    for tensor in read_layout(path).tensors:
        module, lora, _ = tensor.name.partition(".lora_")
        if lora and embedding_kind(module) and read_base(base_folder).has_tied_embeddings:
            raise WorkerError(
                f"{path}: {tensor.name} is LoRA on one of input and output embeddings, which are one tensor "
                "in the base model, and an export would add it to both. Give the model's file "
                "`merge: stream`."
            )


def settle_exported(folder: Path) -> None:
    """Makes an exported model's configuration say that it has two tensors of embeddings, where it has two.

    LLaMA-Factory leaves the base's `tie_word_embeddings: true`: transformers takes both tensors all the
    same, and vLLM one of them for both.
    """
    model = read_base(folder)
    one, other = model.input_embeddings, model.output_embeddings
    if one is None or other is None or model.config.get("tie_word_embeddings") is False:
        return
    if not same_bytes(model.place_of(one.name), model.place_of(other.name)):
        if why := why_not_served_untied(model.config):
            raise WorkerError(
                f"{folder} has two tensors of embeddings, and {why}. Train without the embeddings "
                "(additional_target, resize_vocab), or start from a base with untied ones."
            )
        content = json.dumps(untied(model.config), indent=2, sort_keys=True)
        (folder / CONFIG).write_text(content + "\n", encoding="utf-8")
