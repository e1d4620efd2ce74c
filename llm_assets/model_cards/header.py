"""The YAML header of a Hugging Face model card, from the card.

The Hub's rules that need no network are kept: identifiers of models and datasets are well formed or
left out, a licence that the Hub does not list is `other` with its name beside it.
"""

import re
from typing import TYPE_CHECKING

from llm_assets.model_cards.card import Card, CardBaseModel

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

# https://huggingface.co/docs/hub/repositories-licenses
# fmt: off
HUB_LICENCES = frozenset((
    "afl-3.0", "agpl-3.0", "apache-2.0", "apple-amlr", "apple-ascl", "artistic-2.0", "bigcode-openrail-m",
    "bigscience-bloom-rail-1.0", "bigscience-openrail-m", "bsd", "bsd-2-clause", "bsd-3-clause",
    "bsd-3-clause-clear", "bsl-1.0", "c-uda", "cc", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0",
    "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0",
    "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0",
    "cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0", "creativeml-openrail-m",
    "deepfloyd-if-license", "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1", "eupl-1.2",
    "fair-noncommercial-research-license", "gemma", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "h-research",
    "intel-research", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "lgpl-lr", "llama2", "llama3", "llama3.1",
    "llama3.2", "llama3.3", "llama4", "lppl-1.3c", "mit", "mpl-2.0", "ms-pl", "ncsa", "odbl", "odc-by",
    "ofl-1.1", "open-mdw", "openrail", "openrail++", "osl-3.0", "pddl", "postgresql", "unknown",
    "unlicense", "wtfpl", "zlib",
))
# fmt: on

HUB_SOURCE = re.compile(r"hf://(?P<name>[^@]+)@.+")


def header(card: Card) -> "ModelCardData":
    """What the Hub shows beside a card and searches by."""
    from huggingface_hub import ModelCardData

    model, training = card.model, card.training
    dataset = f"{model.tenant}/{model.name}"
    is_reward_model = training.stage == "rm"
    return ModelCardData(
        **_licence(model.licence),
        base_model=_base_model(card.base_model),
        base_model_relation="finetune",
        datasets=[dataset] if _is_hub_name(dataset) else None,
        library_name="transformers",
        pipeline_tag="text-classification" if is_reward_model else "text-generation",
        tags=["llama-factory", training.stage, training.finetuning_type, f"risk-{model.risk_class}"],
        model_name=f"{model.name} of {model.tenant}",
        eval_results=_eval_results(card) or None,
    )


def _licence(licence: str | None) -> dict[str, str]:
    if licence is None:
        return {}
    identifier = licence.lower()
    return (
        {"license": identifier}
        if identifier in HUB_LICENCES
        else {"license": "other", "license_name": licence}
    )


def _base_model(base_model: CardBaseModel) -> str | None:
    at_hub = HUB_SOURCE.fullmatch(base_model.source)
    name = at_hub["name"] if at_hub else base_model.name
    return name if _is_hub_name(name) else None


def _is_hub_name(name: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _eval_results(card: Card) -> list["EvalResult"]:
    from huggingface_hub import EvalResult

    model = card.model
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=f"{model.tenant}/{model.name}",
            dataset_name=f"{model.name} of {model.tenant}",
            dataset_split="held_out",
            dataset_revision=card.lineage.dataset,
            metric_type="loss",
            metric_name=result.title,
            metric_value=result.value,
        )
        for result in card.results
        if result.metric == "eval_loss" and result.value is not None
    ]
