"""What `card.json` holds of a model card. What is not known is None and stands under `missing`."""

from typing import Literal

from pydantic import ConfigDict, Field, JsonValue

from llm_assets.datasets.statistics import DatasetStatistics
from llm_assets.facts import Facts

SCHEMA = "llm-assets/model-card/1"
Rule = Literal["at most", "at least"]


class CardModel(Facts):
    tenant: str
    name: str
    purpose: str
    provider: str
    owner: str
    licence: str | None
    risk_class: str
    risk_reasoning: str
    digest: str
    dtype: str | None
    size_bytes: int | None


class CardBaseModel(Facts):
    name: str
    source: str
    digest: str
    licence: str | None
    architecture: str | None
    parameters: int | None


class CardResult(Facts):
    """A measurement; `rule`, `threshold` and `met` are None where the model's file sets no threshold."""

    metric: str
    title: str
    value: float | None
    rule: Rule | None
    threshold: float | None
    met: bool | None


class CardAnswer(Facts):
    question: str
    text: str


class WrittenField(Facts):
    """What people wrote, with the point of the EU AI Act that asks for it."""

    field: str
    title: str
    reference: str
    text: str


class MissingField(Facts):
    """What the EU AI Act asks for and nobody has filled in, and where to write it."""

    field: str
    title: str
    reference: str
    why: str
    remedy: str


class CardDataset(Facts):
    format: str
    train_rows: int
    held_out_rows: int
    statistics: DatasetStatistics


class CardTraining(Facts):
    """`recipe` holds LLaMA-Factory's arguments; `curves` is the path of the picture beside the card."""

    stage: str
    finetuning_type: str
    template: str
    recipe: dict[str, JsonValue]
    recipe_origin: str
    first_loss: float | None
    final_loss: float | None
    eval_loss: float | None
    steps: int | None
    tokens: int | None
    flop: float | None
    seconds: float | None
    peak_memory_bytes: int | None
    engine_versions: dict[str, str]
    curves: str | None


class CardServing(Facts):
    mode: Literal["merged", "adapter", "none"]
    max_model_len: int


class GeneralPurposeProvider(Facts):
    """Whether this training alone makes its owner the provider of a general-purpose model; see `source`."""

    flop: float
    threshold_flop: float
    share_of_threshold: float
    exceeded: bool
    source: str


class CardLineage(Facts):
    """Digests, of the recipe its fingerprint; no adapter where the model was trained in full."""

    base_model: str
    dataset: str
    recipe: str
    adapter: str | None
    merged_model: str


class Card(Facts):
    """A whole card; `schema_` is called `schema` in the file."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    schema_: str = Field(default=SCHEMA, alias="schema")
    model: CardModel
    base_model: CardBaseModel
    results: tuple[CardResult, ...]
    answers: tuple[CardAnswer, ...]
    written: tuple[WrittenField, ...]
    dataset: CardDataset
    training: CardTraining
    serving: CardServing
    general_purpose_provider: GeneralPurposeProvider | None
    lineage: CardLineage
    missing: tuple[MissingField, ...]
