"""The content of a model card as JSON: a pure function of the evidence, the same bytes every time."""

from pathlib import PurePath
from typing import Any

from llm_assets.loss_rules import missed_fall
from llm_assets.model_cards.ai_act import general_purpose_provider, missing, written
from llm_assets.model_cards.evidence import Evidence

SCHEMA = "llm-assets/model-card/1"


def card_json(evidence: Evidence) -> dict[str, Any]:
    """The whole card. Keys that are not known hold null and stand under `missing` with their remedy."""
    return {
        "schema": SCHEMA,
        "model": _model(evidence),
        "base_model": _base_model(evidence),
        "results": results(evidence),
        "answers": [{"question": each.question, "text": each.text} for each in evidence.answers],
        "written": written(evidence),
        "dataset": _dataset(evidence),
        "training": _training(evidence),
        "serving": {"mode": evidence.serving_mode, "max_model_len": evidence.max_model_len},
        "general_purpose_provider": general_purpose_provider(evidence),
        "lineage": _lineage(evidence),
        "missing": missing(evidence),
    }


def results(evidence: Evidence) -> list[dict[str, Any]]:
    """Measured against asked: `met` is null where no threshold was set."""
    asked = evidence.thresholds
    title = f"Fall of the {'held-out' if asked.loss == 'held_out' else 'training'} loss, as a share"
    least = None if asked.loss == "none" else asked.min_loss_drop
    fall = _result("loss_drop", title, evidence.loss_drop, "at least", least)
    if least is not None:  # noise is allowed for, so the figure alone does not say it
        fall["met"] = missed_fall(asked, evidence.measured) is None
    return [
        _result("eval_loss", "Loss on held-out rows", evidence.eval_loss, "at most", asked.max_eval_loss),
        fall,
        _result("final_loss", "Training loss at the end", evidence.final_loss, "at most", None),
    ]


def _result(
    metric: str, title: str, value: float | None, rule: str, threshold: float | None
) -> dict[str, Any]:
    met = None
    if threshold is not None:
        met = value is not None and (value <= threshold if rule == "at most" else value >= threshold)
    asked = None if threshold is None else rule
    return {
        "metric": metric,
        "title": title,
        "value": value,
        "rule": asked,
        "threshold": threshold,
        "met": met,
    }


def _model(evidence: Evidence) -> dict[str, Any]:
    return {
        "tenant": evidence.tenant,
        "name": evidence.model,
        "purpose": evidence.purpose,
        "provider": evidence.tenant_owner,
        "owner": evidence.owner,
        "licence": evidence.base_licence,
        "risk_class": evidence.risk_class,
        "risk_reasoning": evidence.risk_reasoning,
        "digest": evidence.digest,
        "dtype": evidence.dtype,
        "size_bytes": evidence.size_bytes,
    }


def _base_model(evidence: Evidence) -> dict[str, Any]:
    return {
        "name": evidence.base_model,
        "source": _portable(evidence.base_source),
        "digest": evidence.base_digest,
        "licence": evidence.base_licence,
        "architecture": evidence.base_architecture,
        "parameters": evidence.base_parameters,
    }


def _portable(source: str) -> str:
    """A source without the folders of the machine that it was read on; what it is, its digest says."""
    scheme, _, rest = source.partition(":")
    return (
        f"{scheme}:…/{PurePath(rest).name}" if rest.startswith("/") and not rest.startswith("//") else source
    )


def _dataset(evidence: Evidence) -> dict[str, Any]:
    return {
        "format": evidence.dataset_format,
        "train_rows": evidence.train_rows,
        "held_out_rows": evidence.held_out_rows,
        "statistics": dict(evidence.statistics),
    }


def _training(evidence: Evidence) -> dict[str, Any]:
    return {
        "stage": evidence.stage,
        "finetuning_type": evidence.finetuning_type,
        "template": evidence.template,
        "recipe": dict(evidence.recipe),
        "recipe_origin": evidence.recipe_origin,
        "first_loss": evidence.first_loss,
        "final_loss": evidence.final_loss,
        "eval_loss": evidence.eval_loss,
        "steps": evidence.steps,
        "tokens": evidence.tokens,
        "flop": evidence.flop,
        "seconds": evidence.train_seconds,
        "peak_memory_bytes": evidence.peak_memory_bytes,
        "engine_versions": dict(evidence.engine_versions),
        "curves": "training/curves.png" if evidence.curves else None,
    }


def _lineage(evidence: Evidence) -> dict[str, str | None]:
    return {
        "base_model": evidence.base_digest,
        "dataset": evidence.dataset_digest,
        "recipe": evidence.recipe_digest,
        "adapter": evidence.adapter_digest,
        "merged_model": evidence.digest,
    }
