"""`models/<model>.yaml`: a line of fine-tuned models that tenants share the recipe of."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from llm_assets.catalog.combinations import RESIZING
from llm_assets.catalog.files import Entry
from llm_assets.catalog.mistakes import Place, Problem, did_you_mean, one_of
from llm_assets.catalog.names import OWNER_RULE, ModelName, Owner
from resources.vllm.program import LORA_RANKS, TOOL_CALL_PARSERS

Text = Annotated[str, Field(min_length=1)]


def check_tool_call_parser(name: str) -> str:
    """The name itself, if the locked vLLM has such a parser. Raises ValueError otherwise."""
    if name in TOOL_CALL_PARSERS:
        return name
    valid = did_you_mean(name, TOOL_CALL_PARSERS, otherwise=one_of(TOOL_CALL_PARSERS, at_most=99))
    raise ValueError(f"vLLM has no parser {name!r} of tool calls; {valid}")


class DatasetSettings(Entry):
    """How a tenant's rows are split."""

    held_out_fraction: float = Field(
        default=0.1,
        ge=0,
        le=0.5,
        description="share of the rows kept out of training for evaluation; 0 for none",
    )
    seed: int = Field(default=42, ge=0, description="which rows: another seed holds out others")


class ServingSettings(Entry):
    """How vLLM serves a deployment."""

    mode: Literal["merged", "adapter", "none"] = Field(
        default="merged",
        description="the merged model, the base model with the adapter loaded, or no deployment",
    )
    weights: Literal["disk", "stream"] = Field(
        default="disk",
        description="load the weights from this node's disk, or stream them from the artifact store",
    )
    max_model_len: int = Field(default=2048, ge=16, description="most tokens of prompt and answer together")
    max_num_seqs: int = Field(default=8, ge=1, le=4096, description="most requests answered at once")
    kv_cache_mib: int = Field(default=256, ge=16, description="memory for the KV cache in MiB")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        default="bfloat16", description="number format of the weights in memory"
    )
    tool_call_parser: Annotated[str, AfterValidator(check_tool_call_parser)] | None = Field(
        default=None,
        description="how vLLM reads the model's tool calls (hermes, llama3_json, …); without it, none",
    )


class Thresholds(Entry):
    """What a trained model must reach before it may be deployed. What is left out is not asked."""

    max_eval_loss: float | None = Field(
        default=None, gt=0, description="greatest loss on the held-out rows at the end of training"
    )
    loss: Literal["training", "held_out", "none"] = Field(
        default="training",
        description="which loss must fall by min_loss_drop: that of the training (noise apart), that of the "
        "held-out rows from before the training to its end, or none",
    )
    min_loss_drop: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="least fall of that loss, as a share of the first (0.2: by a fifth; 0: it must not rise)",
    )


class Retention(Entry):
    """How long artifacts are kept that neither an alias nor a deployment needs; both must be over."""

    versions: int = Field(default=3, ge=1, description="how many of the newest versions stay")
    days: int = Field(default=30, ge=0, description="how many days every version stays")


class Price(Entry):
    """What a tenant is charged for this model's tokens."""

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = Field(
        description="three capital letters of ISO 4217, such as EUR"
    )
    prompt_per_million: float = Field(ge=0, allow_inf_nan=False, description="for a million prompt tokens")
    completion_per_million: float = Field(
        ge=0, allow_inf_nan=False, description="for a million completion tokens"
    )


class Card(Entry):
    """What only people know. A field left out is listed as missing in the model card, never invented."""

    intended_use: Text | None = Field(
        default=None, description="what the model is for, and for whom (Annex IV 1)"
    )
    out_of_scope: Text | None = Field(default=None, description="what it must not be used for (Annex IV 3)")
    limitations: Text | None = Field(
        default=None, description="where it is known to be wrong or weak (Annex IV 3)"
    )
    foreseeable_misuse: Text | None = Field(default=None, description="misuse to be expected (Annex IV 3)")
    human_oversight: Text | None = Field(
        default=None, description="who watches and can stop or overrule it (Annex IV 2e)"
    )
    data_provenance: Text | None = Field(
        default=None,
        description="where the datasets come from, how chosen, labelled and cleaned (Annex IV 2d)",
    )
    metrics_rationale: Text | None = Field(
        default=None, description="why these metrics and thresholds fit the purpose (Annex IV 4)"
    )
    risk_management: Text | None = Field(default=None, description="the risk management system (Annex IV 5)")
    cybersecurity: Text | None = Field(default=None, description="measures against attacks (Annex IV 2h)")
    post_market_plan: Text | None = Field(
        default=None, description="how the model is monitored in use (Annex IV 9, Art. 72)"
    )
    contact: Text | None = Field(default=None, description="whom to write to")


class ModelEntry(Entry):
    """One model. `name` is the file's name."""

    name: ModelName
    base_model: ModelName = Field(description="the name of a file in base_models/")
    owner: Owner = Field(description=OWNER_RULE)
    purpose: Text = Field(description="what the model is for, in a sentence (EU AI Act, Annex IV 1a)")
    risk_class: Literal["prohibited", "high", "limited", "minimal"] = Field(
        description="its class under the EU AI Act"
    )
    risk_reasoning: Text = Field(description="why it is of that class")
    recipe: dict[str, object] = Field(
        description="a LLaMA-Factory recipe without paths: arguments of `llamafactory-cli train`"
    )
    dataset: DatasetSettings = Field(default=DatasetSettings(), description="how a tenant's rows are split")
    serving: ServingSettings = Field(default=ServingSettings(), description="how vLLM serves it")
    merge: Literal["stream", "export"] = Field(
        default="stream",
        description="how base and adapter are merged: tensor by tensor, or by LLaMA-Factory's own export, "
        "which holds the whole model in memory",
    )
    thresholds: Thresholds = Field(default=Thresholds(), description="what it must reach to be deployed")
    retention: Retention = Field(
        default=Retention(), description="how long versions are kept that nobody needs any more"
    )
    price: Price | None = Field(
        default=None, description="what tenants are charged for its tokens; without it usage has no cost"
    )
    promotion: Literal["automatic", "manual"] = Field(
        default="manual", description="whether a new version that passes its checks goes live by itself"
    )
    retraining: Literal["automatic", "manual"] = Field(
        default="manual",
        description="whether a changed recipe in this file starts a run of every tenant's chain by itself",
    )
    known_questions: Annotated[tuple[Text, ...], Field(strict=False)] = Field(
        default=(),
        description="questions that a deployment must answer as the merged model did offline; at least one",
    )
    card: Card = Field(default=Card(), description="fields of the model card that only people can fill in")

    @property
    def is_reward_model(self) -> bool:
        """Its recipe has stage rm: the chain ends with the adapter."""
        return self.recipe.get("stage") == "rm"


def contradictions(model: ModelEntry) -> Iterator[Problem]:
    """What is wrong with a model although each of its fields is well formed."""
    if model.serving.mode != "none" and not model.known_questions:
        valid = "at least one question, or serving.mode none"
        yield Problem(place=("known_questions",), problem="there is none", valid=valid)
    if model.serving.mode != "none" and model.risk_class == "prohibited":
        problem = "a prohibited practice is not put into service (EU AI Act, Art. 5)"
        yield Problem(place=("risk_class",), problem=problem, valid="serving.mode none, or another class")
    if model.thresholds.max_eval_loss is not None and model.dataset.held_out_fraction == 0:
        valid = "a dataset.held_out_fraction above 0"
        problem = "without held-out rows there is no such loss"
        yield Problem(place=("thresholds", "max_eval_loss"), problem=problem, valid=valid)
    if model.thresholds.loss == "held_out" and model.dataset.held_out_fraction == 0:
        valid = "training, none, or a dataset.held_out_fraction above 0"
        problem = "without held-out rows there is no such loss"
        yield Problem(place=("thresholds", "loss"), problem=problem, valid=valid)
    if model.thresholds.loss == "none" and model.thresholds.min_loss_drop > 0:
        problem = "thresholds.loss is none, so nothing has to fall"
        yield Problem(place=("thresholds", "min_loss_drop"), problem=problem, valid="0, or another loss")
    yield from misfits(model, model.recipe, ("recipe",))


def misfits(model: ModelEntry, recipe: Mapping[str, object], place: Place = ()) -> Iterator[Problem]:
    """Where a recipe (the model's or an experiment's) does not go with how the model is split and served."""

    def misfit(key: str, problem: str, valid: str) -> Problem:
        return Problem(place=(*place, key), problem=problem, valid=valid)

    mode = model.serving.mode
    if recipe.get("stage") == "rm" and mode != "none":
        yield misfit("stage", "a reward model (rm) cannot be served", "serving.mode none in the model's file")
    if recipe.get("eval_strategy", "no") != "no" and model.dataset.held_out_fraction == 0:
        yield misfit(
            "eval_strategy", "the model's dataset.held_out_fraction is 0", "no, or a fraction above 0"
        )
    asked = model.thresholds
    if recipe.get("use_asft_loss") and (asked.max_eval_loss is not None or asked.loss == "held_out"):
        problem = "nothing is evaluated with it, and the model's thresholds ask for a held-out loss"
        yield misfit("use_asft_loss", problem, "false, or thresholds without one")
    if mode == "adapter":
        yield from (misfit(*each) for each in _unservable_adapter(recipe))


def _unservable_adapter(recipe: Mapping[str, object]) -> Iterator[tuple[str, str, str]]:
    """What vLLM would not load as an adapter beside its base model: key, problem, and the ways out."""
    merged = "or serving.mode merged in the model's file"
    if recipe.get("finetuning_type") == "full":
        yield "finetuning_type", "full gives no adapter to serve", f"lora, {merged}"
    if recipe.get("use_dora"):
        yield "use_dora", "vLLM loads no DoRA adapter", f"false, {merged}"
    if recipe.get("additional_target"):
        problem = "vLLM loads no adapter with fully trained modules"
        yield "additional_target", problem, f"null, {merged}"
    if recipe.get("pissa_init"):
        problem = "its adapter is the small difference of two large ones, which vLLM's bfloat16 loses"
        yield "pissa_init", problem, f"false, {merged}"
    for key in RESIZING:
        if recipe.get(key):
            problem = "a resized vocabulary trains the embeddings in full, and vLLM loads no such adapter"
            yield key, problem, f"leave it out, {merged}"
    rank = recipe.get("lora_rank")
    if isinstance(rank, int) and rank > LORA_RANKS[-1]:
        yield "lora_rank", "vLLM serves no adapter of such a rank", f"at most {LORA_RANKS[-1]}, {merged}"
