"""Everything that a model card is computed from, as one flat value.

Nothing in it may depend on when or where the card is computed: no date, no run id, no absolute path, no
version label. Those stand in the registry, beside the card.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import JsonValue

from llm_assets.catalog.models import Thresholds
from llm_assets.datasets.statistics import DatasetStatistics
from llm_assets.loss_rules import LOSSES, Measured, compared

RiskClass = Literal["prohibited", "high", "limited", "minimal"]


@dataclass(frozen=True, kw_only=True)
class SampleAnswer:
    """What the merged model said offline, decoded greedily."""

    question: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Facts about one merged model of one tenant. `None` means not known; the card then says so.

    Digests are `sha256:…` of the artifacts; losses are mean cross-entropy per token (for dpo, kto and
    rm the loss of that stage).
    """

    # From the catalog
    tenant: str
    tenant_owner: str
    model: str
    owner: str
    purpose: str
    risk_class: RiskClass
    risk_reasoning: str
    thresholds: Thresholds
    written: Mapping[str, str | None]  # the fields of `card:` in the model's file
    serving_mode: Literal["merged", "adapter", "none"]
    max_model_len: int

    # Of the base model
    base_model: str
    base_source: str
    base_digest: str
    base_licence: str | None = None
    base_architecture: str | None = None
    base_parameters: int | None = None

    # Of the dataset
    dataset_digest: str
    dataset_format: str
    train_rows: int
    held_out_rows: int
    statistics: DatasetStatistics

    # Of the training
    recipe: Mapping[str, JsonValue]  # LLaMA-Factory's arguments
    recipe_origin: str  # the catalog file it came from, relative
    recipe_digest: str
    template: str
    first_loss: float | None
    final_loss: float | None
    loss_noise: float | None = None  # standard error of final_loss - first_loss
    eval_loss_before: float | None = None
    eval_loss: float | None = None
    steps: int | None
    tokens: int | None = None
    flop: float | None = None
    base_flop: float | None = None  # what the base model's own training took
    train_seconds: float | None = None
    peak_memory_bytes: int | None = None
    engine_versions: Mapping[str, str] = field(default_factory=dict)
    curves: bool = False  # training/curves.png lies beside the card

    # Of the merged model
    digest: str
    adapter_digest: str | None = None  # None: full fine-tuning
    dtype: str | None = None
    size_bytes: int | None = None
    answers: tuple[SampleAnswer, ...] = ()

    @property
    def stage(self) -> str:
        return str(self.recipe.get("stage", "sft"))

    @property
    def finetuning_type(self) -> str:
        """lora, full, or qlora: LoRA on a quantized base model."""
        kind = str(self.recipe.get("finetuning_type", "lora"))
        return "qlora" if kind == "lora" and self.recipe.get("quantization_bit") else kind

    @property
    def measured(self) -> Measured:
        """The losses by name."""
        return {name: getattr(self, name) for name in LOSSES}

    @property
    def loss_drop(self) -> float | None:
        """The fall of the loss that the thresholds are about, as a share of the first; None: not measured."""
        before, after, _ = compared(self.thresholds, self.measured)
        return None if before is None or after is None else (before - after) / before if before else 0.0
