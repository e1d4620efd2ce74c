"""From the evidence to a model card: a pure function, the same card every time."""

from pathlib import PurePath

from llm_assets.loss_rules import missed_fall
from llm_assets.model_cards.ai_act import general_purpose_provider, missing, written
from llm_assets.model_cards.card import (
    Card,
    CardAnswer,
    CardBaseModel,
    CardDataset,
    CardLineage,
    CardModel,
    CardResult,
    CardServing,
    CardTraining,
    Rule,
)
from llm_assets.model_cards.evidence import Evidence


def card_of(evidence: Evidence) -> Card:
    """The whole card."""
    return Card(
        model=_model(evidence),
        base_model=_base_model(evidence),
        results=results(evidence),
        answers=tuple(CardAnswer(question=each.question, text=each.text) for each in evidence.answers),
        written=written(evidence),
        dataset=CardDataset(
            format=evidence.dataset_format,
            train_rows=evidence.train_rows,
            held_out_rows=evidence.held_out_rows,
            statistics=evidence.statistics,
        ),
        training=_training(evidence),
        serving=CardServing(mode=evidence.serving_mode, max_model_len=evidence.max_model_len),
        general_purpose_provider=general_purpose_provider(evidence),
        lineage=CardLineage(
            base_model=evidence.base_digest,
            dataset=evidence.dataset_digest,
            recipe=evidence.recipe_digest,
            adapter=evidence.adapter_digest,
            merged_model=evidence.digest,
        ),
        missing=missing(evidence),
    )


def results(evidence: Evidence) -> tuple[CardResult, ...]:
    """Measured against asked."""
    asked = evidence.thresholds
    title = f"Fall of the {'held-out' if asked.loss == 'held_out' else 'training'} loss, as a share"
    least = None if asked.loss == "none" else asked.min_loss_drop
    fall = _result("loss_drop", title, evidence.loss_drop, "at least", least)
    if least is not None:  # noise is allowed for, so the figure alone does not say it
        fall = fall.model_copy(update={"met": missed_fall(asked, evidence.measured) is None})
    return (
        _result("eval_loss", "Loss on held-out rows", evidence.eval_loss, "at most", asked.max_eval_loss),
        fall,
        _result("final_loss", "Training loss at the end", evidence.final_loss, "at most", None),
    )


def _result(metric: str, title: str, value: float | None, rule: Rule, threshold: float | None) -> CardResult:
    met = None
    if threshold is not None:
        met = value is not None and (value <= threshold if rule == "at most" else value >= threshold)
    asked = None if threshold is None else rule
    return CardResult(metric=metric, title=title, value=value, rule=asked, threshold=threshold, met=met)


def _model(evidence: Evidence) -> CardModel:
    return CardModel(
        tenant=evidence.tenant,
        name=evidence.model,
        purpose=evidence.purpose,
        provider=evidence.tenant_owner,
        owner=evidence.owner,
        licence=evidence.base_licence,
        risk_class=evidence.risk_class,
        risk_reasoning=evidence.risk_reasoning,
        digest=evidence.digest,
        dtype=evidence.dtype,
        size_bytes=evidence.size_bytes,
    )


def _base_model(evidence: Evidence) -> CardBaseModel:
    return CardBaseModel(
        name=evidence.base_model,
        source=_portable(evidence.base_source),
        digest=evidence.base_digest,
        licence=evidence.base_licence,
        architecture=evidence.base_architecture,
        parameters=evidence.base_parameters,
    )


def _portable(source: str) -> str:
    """A source without the folders of the machine that it was read on; what it is, its digest says."""
    scheme, _, rest = source.partition(":")
    return (
        f"{scheme}:…/{PurePath(rest).name}" if rest.startswith("/") and not rest.startswith("//") else source
    )


def _training(evidence: Evidence) -> CardTraining:
    return CardTraining(
        stage=evidence.stage,
        finetuning_type=evidence.finetuning_type,
        template=evidence.template,
        recipe=dict(evidence.recipe),
        recipe_origin=evidence.recipe_origin,
        first_loss=evidence.first_loss,
        final_loss=evidence.final_loss,
        eval_loss=evidence.eval_loss,
        steps=evidence.steps,
        tokens=evidence.tokens,
        flop=evidence.flop,
        seconds=evidence.train_seconds,
        peak_memory_bytes=evidence.peak_memory_bytes,
        engine_versions=dict(evidence.engine_versions),
        curves="training/curves.png" if evidence.curves else None,
    )
