"""What the manifest of each kind of artifact says: the one place that reads and writes it.

In the store a manifest's attributes are plain JSON, signed as they stand. Here they have a type for each
kind. `of` reads one and `attributes` gives what is published: exactly the fields that were set, so that
reading and publishing again changes no byte.
"""

from typing import Self

from pydantic import JsonValue, ValidationError

from llm_assets.datasets.remarks import FileRemark
from llm_assets.datasets.statistics import DatasetStatistics
from llm_assets.facts import Facts
from llm_assets.loss_rules import LOSSES
from llm_assets.model_cards.card import MissingField
from resources.artifact_store.artifacts import Artifact, ArtifactError
from resources.base_models.folders import BaseModelFacts
from resources.vllm.answers import KnownAnswer


class Manifest(Facts):
    """What is known of an artifact, whatever its kind."""

    @classmethod
    def of(cls, artifact: Artifact) -> Self:
        """Raises:
        ArtifactError: The artifact is none of this kind; names the fields.
        """
        try:
            return cls.model_validate(artifact.attributes)
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
            raise ArtifactError(
                f"The manifest of {artifact.uri} cannot be read as a {cls.__name__}: {wrong}. Delete that "
                "version's folder and run again."
            ) from error

    def attributes(self) -> dict[str, object]:
        """As they are published."""
        return self.model_dump(exclude_unset=True)


class Parents(Manifest):
    """What an artifact was made from; None where it was not made from such a thing."""

    base_uri: str | None = None
    base_digest: str | None = None
    dataset_uri: str | None = None
    dataset_digest: str | None = None
    adapter_uri: str | None = None
    adapter_digest: str | None = None

    @property
    def uris(self) -> tuple[str, ...]:
        return tuple(uri for uri in (self.base_uri, self.dataset_uri, self.adapter_uri) if uri)


class BaseModelManifest(Manifest):
    """`source` is the catalog's."""

    fingerprint: str
    source: str
    licence: str
    facts: BaseModelFacts


class DatasetManifest(Manifest):
    """`samples` are a few rows, cut short, as the dataset's own columns have them."""

    fingerprint: str
    format: str
    rows: int
    train_rows: int
    held_out_rows: int
    statistics: DatasetStatistics
    samples: tuple[dict[str, JsonValue], ...]
    remarks: tuple[FileRemark, ...]
    cutoff_len: int


class TrainingResult(Facts):
    """What was measured. Losses are means in nats for a token; None where nothing was evaluated."""

    first_loss: float | None = None
    final_loss: float | None = None
    loss_noise: float | None = None
    eval_loss_before: float | None = None
    eval_loss: float | None = None
    steps: int | None = None
    tokens: int | None = None
    flop: float | None = None
    train_seconds: float | None = None
    peak_memory_bytes: int | None = None
    peak_gpu_memory_bytes: int | None = None
    engine_versions: dict[str, str]
    resumed_from_step: int | None = None

    @property
    def losses(self) -> dict[str, float]:
        """Those that were measured, by the names that the model's thresholds use."""
        return {name: loss for name in LOSSES if (loss := getattr(self, name)) is not None}


class AdapterManifest(Manifest):
    """`recipe` holds LLaMA-Factory's arguments, whose schema is LLaMA-Factory's."""

    fingerprint: str
    base_uri: str
    base_digest: str
    dataset_uri: str
    dataset_digest: str
    recipe: dict[str, JsonValue]
    recipe_origin: str
    recipe_replaced: tuple[str, ...] = ()
    recipe_without_effect: tuple[str, ...] = ()
    template: str
    engine_lock: str
    training: TrainingResult

    @property
    def trained_in_full(self) -> bool:
        return self.recipe.get("finetuning_type") == "full"


class Comparison(Facts):
    """Merged against base and adapter on one text: KL divergences and losses in nats for a token."""

    positions: int
    mean_kl: float
    max_kl: float
    base_mean_kl: float
    rounded_mean_kl: float
    top1_agreement: float
    base_loss: float | None = None
    adapter_loss: float | None = None
    merged_loss: float | None = None


class PromptComparison(Comparison):
    prompt: str
    kind: str


class Fidelity(Comparison):
    """All texts together. `lost_share`: how much of what the adapter changes the merged model lacks."""

    held_out_prompts: int
    limit_mean_kl: float
    lost_share: float
    computed_on: str
    prompts: tuple[PromptComparison, ...]
    seconds: float
    peak_memory_bytes: int
    peak_gpu_memory_bytes: int | None = None


class StreamCost(Facts):
    seconds: float
    peak_memory_bytes: int


class Merge(Facts):
    """How it was merged and what it answered, offline and decoded greedily.

    `fidelity` is None where nothing was compared; `ledger`, the tensors by what became of them, where the
    engine's export merged.
    """

    method: str
    answers: tuple[KnownAnswer, ...]
    dtype: str | None = None
    chat_template: str | None = None
    fidelity: Fidelity | None = None
    ledger: dict[str, int] | None = None
    stream: StreamCost | None = None
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    peak_gpu_memory_bytes: int | None = None
    engine_versions: dict[str, str] | None = None


class MergedManifest(Manifest):
    fingerprint: str
    base_uri: str
    base_digest: str
    adapter_uri: str
    adapter_digest: str
    dataset_uri: str
    dataset_digest: str
    merge: Merge


class CardManifest(Manifest):
    """Of the merged model with that address and digest; `missing` is what nobody has filled in."""

    fingerprint: str
    model_uri: str
    model_digest: str
    missing: tuple[MissingField, ...]
