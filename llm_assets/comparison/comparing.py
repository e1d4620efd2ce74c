"""Two versions side by side: a pure function from what is known of each to what is different."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from llm_assets.comparison.rows import RowChanges
from llm_assets.loss_rules import LOSSES
from llm_assets.made_from import Lineage
from llm_assets.manifests import AdapterManifest, Merge
from llm_assets.model_cards import Card
from resources.mlflow.registry import RegisteredVersion

Judgement = Literal["better", "worse", "same", ""]

HIGHER_IS_BETTER: Mapping[str, bool] = {
    "eval_loss": False,
    "final_loss": False,
    "loss_drop": True,
}
MEASURED = (*LOSSES, "train_seconds")
DIGITS = 4  # what is equal to so many digits counts as the same


@dataclass(frozen=True, kw_only=True)
class Side:
    """What is known of one version. `card` is None where it is gone."""

    version: RegisteredVersion
    lineage: Lineage
    adapter: AdapterManifest
    merge: Merge
    card: Card | None


@dataclass(frozen=True, kw_only=True)
class Change:
    """One thing that differs; None where there is nothing on that side."""

    name: str
    before: JsonValue
    after: JsonValue


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One measurement of both, and whether the second is better: an empty text where nobody can say."""

    name: str
    before: float | None
    after: float | None
    judgement: Judgement


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What both answer to the same question, offline and decoded greedily; None: it was not asked."""

    question: str
    before: str | None
    after: str | None


@dataclass(frozen=True, kw_only=True)
class Named:
    """Which version a side is."""

    number: int
    label: str
    digest: str
    aliases: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that differs between two versions of one tenant's model."""

    tenant: str
    model: str
    before: Named
    after: Named
    metrics: tuple[Metric, ...]
    dataset: Change  # digests
    rows: RowChanges
    recipe: tuple[Change, ...]
    base: tuple[Change, ...]
    engines: tuple[Change, ...]
    answers: tuple[Answers, ...]
    card: tuple[Change, ...]


def compare(before: Side, after: Side, rows: RowChanges) -> Comparison:
    """`rows` is what their datasets do not share. Both versions are of one model of one tenant."""
    old, new = before.lineage, after.lineage
    return Comparison(
        tenant=before.version.tenant,
        model=before.version.model,
        before=_named(before.version),
        after=_named(after.version),
        metrics=_metrics(measured(before), measured(after), rows),
        dataset=Change(name="digest", before=old.dataset.digest, after=new.dataset.digest),
        rows=rows,
        recipe=changes(before.adapter.recipe, after.adapter.recipe),
        base=changes(_base(old), _base(new)),
        engines=changes(before.adapter.training.engine_versions, after.adapter.training.engine_versions),
        answers=_answers(before.merge, after.merge),
        card=changes(_card_fields(before.card), _card_fields(after.card)),
    )


def changes(before: Mapping[str, JsonValue], after: Mapping[str, JsonValue]) -> tuple[Change, ...]:
    """The keys whose values differ, sorted; a key that is missing holds None."""
    return tuple(
        Change(name=name, before=before.get(name), after=after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    )


def _named(version: RegisteredVersion) -> Named:
    return Named(number=version.number, label=version.label, digest=version.digest, aliases=version.aliases)


def measured(side: Side) -> dict[str, float]:
    """What was measured in its training, by the adapter's manifest."""
    training = side.adapter.training
    return {name: value for name in MEASURED if (value := getattr(training, name)) is not None}


def _metrics(before: Mapping[str, float], after: Mapping[str, float], rows: RowChanges) -> tuple[Metric, ...]:
    old, new = _with_loss_drop(before), _with_loss_drop(after)
    return tuple(
        Metric(
            name=name,
            before=old.get(name),
            after=new.get(name),
            judgement=_judgement(name, old.get(name), new.get(name), rows),
        )
        for name in sorted(old.keys() | new.keys())
    )


def _with_loss_drop(metrics: Mapping[str, float]) -> dict[str, float]:
    first, final = metrics.get("first_loss"), metrics.get("final_loss")
    drop = {"loss_drop": (first - final) / first} if first and final is not None else {}
    return {**metrics, **drop}


def _judgement(name: str, before: float | None, after: float | None, rows: RowChanges) -> Judgement:
    """A held-out loss on other rows is another question, so neither is better."""
    if before is None or after is None or name not in HIGHER_IS_BETTER:
        return ""
    if name == "eval_loss" and not rows.same_held_out:
        return ""
    if f"{before:.{DIGITS}g}" == f"{after:.{DIGITS}g}":
        return "same"
    return "better" if (after > before) == HIGHER_IS_BETTER[name] else "worse"


def _base(lineage: Lineage) -> dict[str, JsonValue]:
    return {"base model": lineage.base.line.name, "digest": lineage.base.digest}


def _answers(before: Merge, after: Merge) -> tuple[Answers, ...]:
    old, new = ({each["question"]: each["text"] for each in merge.answers} for merge in (before, after))
    return tuple(
        Answers(question=question, before=old.get(question), after=new.get(question))
        for question in dict.fromkeys([*new, *old])
    )


def _card_fields(card: Card | None) -> dict[str, JsonValue]:
    """What people and the law say of a model; what was measured stands elsewhere in a comparison."""
    if card is None:
        return {}
    model = ("purpose", "owner", "provider", "licence", "risk_class", "risk_reasoning")
    fields: dict[str, JsonValue] = {name: getattr(card.model, name) for name in model}
    fields |= {each.field: each.text for each in card.written}
    fields |= {f"threshold of {each.metric}": each.threshold for each in card.results}
    fields["not filled in"] = ", ".join(each.field for each in card.missing) or None
    return fields
