"""What the EU AI Act asks of a card, read from `ai_act.yaml`, and which of it nobody has answered."""

from collections.abc import Iterable
from functools import cache
from importlib.resources import files

import yaml

from llm_assets.facts import Facts
from llm_assets.model_cards.card import GeneralPurposeProvider, MissingField, WrittenField
from llm_assets.model_cards.evidence import Evidence, RiskClass


class Asked(Facts):
    """A point of the Act. `remedy` is that of a measured one; without `risk_classes` it is asked of all."""

    field: str
    title: str
    reference: str
    why: str
    remedy: str = ""
    risk_classes: tuple[RiskClass, ...] | None = None


class ProviderRule(Facts):
    share: float
    unknown_flop: float
    source: str


class AiAct(Facts):
    written: tuple[Asked, ...]
    measured: tuple[Asked, ...]
    elsewhere: tuple[Asked, ...]
    general_purpose_provider: ProviderRule


@cache
def ai_act() -> AiAct:
    """The content of `ai_act.yaml`."""
    text = (files("llm_assets.model_cards") / "ai_act.yaml").read_text("utf-8")
    return AiAct.model_validate(yaml.safe_load(text))


def written(evidence: Evidence) -> tuple[WrittenField, ...]:
    """What people wrote, in the order of the card, each with its title and point of the Act."""
    return tuple(
        WrittenField(field=asked.field, title=asked.title, reference=asked.reference, text=text)
        for asked in ai_act().written
        if (text := (evidence.written.get(asked.field) or "").strip())
    )


def missing(evidence: Evidence) -> tuple[MissingField, ...]:
    """What the Act asks for a model of this risk class and nobody has filled in; each with its remedy."""
    act = ai_act()
    filled = {each.field for each in written(evidence)}
    found = [
        _missing(asked, f"`card.{asked.field}` in `catalog/models/{evidence.model}.yaml`")
        for asked in act.written
        if asked.field not in filled and _concerns(asked, evidence)
    ]
    found += [
        _missing(asked, asked.remedy.format(model=evidence.model, base_model=evidence.base_model))
        for asked in act.measured
        if getattr(evidence, asked.field) in (None, "", ()) and _concerns(asked, evidence)
    ]
    beside = "no field of the catalog; keep it with your technical documentation"
    found += [_missing(asked, beside) for asked in act.elsewhere if _concerns(asked, evidence)]
    return tuple(found)


def can_be_filled_in(missing: Iterable[MissingField]) -> list[MissingField]:
    """What the catalog or a measurement would answer; the rest is kept beside the card, by people."""
    elsewhere = {asked.field for asked in ai_act().elsewhere}
    return [each for each in missing if each.field not in elsewhere]


def general_purpose_provider(evidence: Evidence) -> GeneralPurposeProvider | None:
    """Whether this training alone makes its owner provider of a general-purpose model; None without FLOP."""
    if evidence.flop is None:
        return None
    rule = ai_act().general_purpose_provider
    threshold_flop = rule.share * (evidence.base_flop or rule.unknown_flop)
    return GeneralPurposeProvider(
        flop=evidence.flop,
        threshold_flop=threshold_flop,
        share_of_threshold=evidence.flop / threshold_flop,
        exceeded=evidence.flop > threshold_flop,
        source=rule.source,
    )


def _concerns(asked: Asked, evidence: Evidence) -> bool:
    return asked.risk_classes is None or evidence.risk_class in asked.risk_classes


def _missing(asked: Asked, remedy: str) -> MissingField:
    return MissingField(
        field=asked.field, title=asked.title, reference=asked.reference, why=asked.why, remedy=remedy
    )
