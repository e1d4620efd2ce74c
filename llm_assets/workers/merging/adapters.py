"""A PEFT adapter on disk: what its configuration means for each module, and what cannot be merged here.

Read from PEFT 0.18: scaling in `tuners/lora/layer.py`, patterns in `utils/other.py` (get_pattern_key),
names in `utils/save_and_load.py`. Whatever changes the base as it is loaded, or cannot be expressed as
new weights, is refused by name.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from llm_assets.workers.failures import WorkerError
from llm_assets.workers.merging.weight_files import ITEM_BYTES, Tensor, WeightFile, read_layout
from llm_assets.workers.trained_files import ADAPTER_CONFIG

ADAPTER_WEIGHTS = "adapter_model.safetensors"
# LLaMA-Factory's own export takes no other kind either (seen with OFT and PiSSA), so it is no way out.
REMEDY = "Train it again on this base model as LoRA, rsLoRA or DoRA"
PREFIX = "base_model.model."
# Settings under which the weights of A and B do not say everything. Falsy values are PEFT's defaults.
NOT_MERGED = {
    "target_parameters": "LoRA on fused parameters, as in mixtures of experts",
    "layer_replication": "layers that are used several times",
    "trainable_token_indices": "single trained tokens",
    "alora_invocation_tokens": "activated LoRA, which is switched on by tokens",
    "arrow_config": "Arrow, which routes between adapters",
    "use_qalora": "QALoRA",
    "megatron_config": "Megatron layers",
    "loftq_config": "LoftQ, which changes the base model's weights",
}
# These initializations subtract the adapter's first state from the base; PEFT does it again as it loads.
CHANGING_INITIALIZATIONS = ("pissa", "olora", "corda", "loftq")

Part = Literal["A", "B", "embedding_A", "embedding_B", "B_bias", "magnitude", "whole"]
_PARTS = (
    (re.compile(r"(.+)\.lora_([AB])\.weight"), None),
    (re.compile(r"(.+)\.lora_(embedding_[AB])"), None),
    (re.compile(r"(.+)\.lora_B\.bias"), "B_bias"),
    (re.compile(r"(.+)\.lora_magnitude_vector(?:\.weight)?"), "magnitude"),
)
_UNKNOWN = re.compile(r"(^|\.)(lora_|token_adapter|ia3_|hada_|vera_|oft_|boft_|ranknum)")


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A LoRA adapter whose every setting can be merged."""

    folder: Path
    config: Mapping[str, Any]
    weights: WeightFile

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return {tensor.name: tensor for tensor in self.weights.tensors}

    def scale(self, module: str, rank: int, tensor: Tensor) -> float:
        """alpha / r, with rsLoRA alpha / sqrt(r), by the module's own rank and alpha.

        Raises:
            WorkerError: The tensor has another rank than the configuration says.
        """
        wanted = int(_by_pattern(self.config.get("rank_pattern"), module, self.config["r"]))
        if wanted != rank:
            raise WorkerError(
                f"{self.folder / ADAPTER_WEIGHTS}: {tensor} has the rank {rank}, and "
                f"{ADAPTER_CONFIG} gives {module} the rank {wanted}. They are not of one training."
            )
        alpha = float(_by_pattern(self.config.get("alpha_pattern"), module, self.config["lora_alpha"]))
        return alpha / math.sqrt(rank) if self.config.get("use_rslora") else alpha / rank


def read_adapter(folder: Path) -> Adapter:
    """The adapter in `folder`.

    Raises:
        WorkerError: It is not there, or of a kind that is not merged here; names it and the remedy.
    """
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WorkerError(f"{folder} holds no adapter: {ADAPTER_CONFIG} is missing.") from error
    except ValueError as error:
        raise WorkerError(f"{folder / ADAPTER_CONFIG} is not JSON: {error}. Train it again.") from error
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise WorkerError(f"{folder} holds no {ADAPTER_WEIGHTS}; only safetensors weights are merged.")
    _refuse(folder, config)
    adapter = Adapter(folder=folder, config=config, weights=read_layout(folder / ADAPTER_WEIGHTS))
    for tensor in adapter.weights.tensors:
        if tensor.dtype not in ITEM_BYTES:
            raise WorkerError(
                f"{folder / ADAPTER_WEIGHTS}: {tensor} is of a type that is not merged; "
                f"{', '.join(ITEM_BYTES)} are. {REMEDY}."
            )
    return adapter


def part_of(adapter: Adapter, name: str) -> tuple[str, Part]:
    """The base's module (or for a `whole` tensor, its name) that an adapter's tensor belongs to.

    Raises:
        WorkerError: It is none of LoRA's.
    """
    inner = name.removeprefix(PREFIX)
    for pattern, part in _PARTS:
        if match := pattern.fullmatch(inner):
            module = match[1]
            if module.endswith(".base_layer"):
                raise refusal(adapter, name, NOT_MERGED["target_parameters"])
            return module, part or match[2]  # type: ignore[return-value]  # the pattern allows no other
    if _UNKNOWN.search(inner):
        raise refusal(adapter, name, "no tensor of LoRA that is known here")
    return inner.replace(".base_layer.", ".").replace(".modules_to_save.", "."), "whole"


def refusal(adapter: Adapter, name: str, why: str) -> WorkerError:
    return WorkerError(f"{adapter.folder / ADAPTER_WEIGHTS}: {name} is not merged here: {why}. {REMEDY}.")


def _refuse(folder: Path, config: Mapping[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise WorkerError(f"The adapter in {folder} is of the type {kind}; LORA is merged here. {REMEDY}.")
    for setting, what in NOT_MERGED.items():
        if config.get(setting):
            raise WorkerError(
                f"The adapter in {folder} has {setting}: {what}. That is not merged here. {REMEDY}."
            )
    start = str(config.get("init_lora_weights") or "").lower()
    if start.startswith(CHANGING_INITIALIZATIONS):
        raise WorkerError(
            f"The adapter in {folder} was begun by init_lora_weights: {start}, which changes the base "
            f"model's weights as it is loaded. Train it again: of `pissa_init` an adapter for the untouched "
            "base is made at the end of the training."
        )


def _by_pattern(patterns: Mapping[str, Any] | None, module: str, otherwise: Any) -> Any:
    """The value of the first pattern that matches the end of the module's name."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return otherwise
