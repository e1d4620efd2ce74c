"""What the EU AI Act asks of a card, read from `ai_act.yaml`, and which of it nobody has answered."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from llm_assets.model_cards.evidence import Evidence


@cache
def ai_act() -> dict[str, Any]:
    """The content of `ai_act.yaml`."""
    text = (files("llm_assets.model_cards") / "ai_act.yaml").read_text("utf-8")
    return dict(yaml.safe_load(text))


def written(evidence: Evidence) -> list[dict[str, str]]:
    """What people wrote, in the order of the card, each with its title and point of the Act."""
    return [
        {"field": asked["field"], "title": asked["title"], "reference": asked["reference"], "text": text}
        for asked in ai_act()["written"]
        if (text := (evidence.written.get(asked["field"]) or "").strip())
    ]


def missing(evidence: Evidence) -> list[dict[str, str]]:
    """What the Act asks for a model of this risk class and nobody has filled in; each with its remedy."""
    act = ai_act()
    filled = {each["field"] for each in written(evidence)}
    found = [
        _missing(asked, f"`card.{asked['field']}` in `catalog/models/{evidence.model}.yaml`")
        for asked in act["written"]
        if asked["field"] not in filled and _concerns(asked, evidence)
    ]
    found += [
        _missing(asked, asked["remedy"].format(model=evidence.model, base_model=evidence.base_model))
        for asked in act["measured"]
        if getattr(evidence, asked["field"]) in (None, "", ()) and _concerns(asked, evidence)
    ]
    beside = "no field of the catalog; keep it with your technical documentation"
    return found + [_missing(asked, beside) for asked in act["elsewhere"] if _concerns(asked, evidence)]


def can_be_filled_in(missing: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """What the catalog or a measurement would answer; the rest is kept beside the card, by people."""
    elsewhere = {asked["field"] for asked in ai_act()["elsewhere"]}
    return [each for each in missing if each["field"] not in elsewhere]


def general_purpose_provider(evidence: Evidence) -> dict[str, Any] | None:
    """Whether this training alone makes its owner provider of a general-purpose model; None without FLOP."""
    if evidence.flop is None:
        return None
    rule = ai_act()["general_purpose_provider"]
    threshold_flop = rule["share"] * (evidence.base_flop or rule["unknown_flop"])
    return {
        "flop": evidence.flop,
        "threshold_flop": threshold_flop,
        "share_of_threshold": evidence.flop / threshold_flop,
        "exceeded": evidence.flop > threshold_flop,
        "source": rule["source"],
    }


def _concerns(asked: dict[str, Any], evidence: Evidence) -> bool:
    return evidence.risk_class in asked.get("risk_classes", [evidence.risk_class])


def _missing(asked: dict[str, Any], remedy: str) -> dict[str, str]:
    return {name: asked[name] for name in ("field", "title", "reference", "why")} | {"remedy": remedy}
