"""A model card as a page that people read: the first screen says what it is and whether it is good."""

from collections.abc import Mapping

import yaml
from pydantic import JsonValue

from llm_assets.model_cards.card import Card, CardResult
from llm_assets.model_cards.contents import card_of
from llm_assets.model_cards.evidence import Evidence
from llm_assets.model_cards.header import header
from llm_assets.model_cards.markdown import code, inline, number, quote, size, table

RISK_WORDS = {
    "prohibited": "prohibited practice (Article 5)",
    "high": "high risk",
    "limited": "limited risk (transparency duties)",
    "minimal": "minimal risk",
}
SHOWN_ANSWERS_IN_SUMMARY = 3
SHORT_DIGEST = 12


def card_markdown(evidence: Evidence) -> str:
    """The card as a Hugging Face README.md: YAML header, then the page. Says the same as the card's JSON."""
    from huggingface_hub import ModelCard

    card = card_of(evidence)
    return str(ModelCard(f"---\n{header(card).to_yaml()}\n---\n\n{_page(card)}\n"))


def model_summary(evidence: Evidence) -> str:
    """A few lines of Markdown on the model as such, whatever its version: for the registry's page."""
    card = card_of(evidence)
    model = card.model
    return "\n\n".join(
        [
            f"**{inline(model.name)} of {inline(model.tenant)}**: {inline(model.purpose)}",
            f"- Owner: {inline(model.owner)}; provider: {inline(model.provider)}\n"
            f"- Risk class: {RISK_WORDS[model.risk_class]}: {inline(model.risk_reasoning)}\n"
            f"- Base model: {_base_model(card)}",
        ]
    )


def version_summary(evidence: Evidence) -> str:
    """Verdict, results, digests, answers and what is missing of one version: Markdown for the registry."""
    card = card_of(evidence)
    missing = len(card.missing)
    return "\n\n".join(
        [
            f"Thresholds: {_verdict(card)}.",
            "\n".join(f"- {_result_line(each)}" for each in card.results),
            _lineage(card),
            *_answers(card, most=SHOWN_ANSWERS_IN_SUMMARY),
            f"Not filled in: {missing} fields of the model card."
            if missing
            else "The model card is complete.",
        ]
    )


def _result_line(result: CardResult) -> str:
    asked = f" ({result.rule} {number(result.threshold)})" if result.rule else ""
    return f"{inline(result.title)}: {number(result.value)}{asked}"


def _page(card: Card) -> str:
    model = card.model
    parts = [
        f"# {inline(model.name)} of {inline(model.tenant)}",
        inline(model.purpose),
        _facts(card),
    ]
    parts += ["## Results", _results(card)]
    parts += ["## What it answers", *_answers(card)] if card.answers else []
    parts += [f"## {each.title}\n\n{each.text}\n\n*{each.reference}*" for each in card.written]
    parts += ["## Data", _data(card), "## Training", *_training(card), "## Lineage", _lineage(card)]
    return "\n\n".join([*parts, *_missing(card)])


def _facts(card: Card) -> str:
    model, data, training = card.model, card.dataset, card.training
    missing = len(card.missing)
    rows = {
        "Provider": inline(model.provider),
        "Owner": inline(model.owner),
        "Licence": f"{inline(model.licence)} (of the base model)" if model.licence else "not known",
        "Risk class": f"**{RISK_WORDS[model.risk_class]}**: {inline(model.risk_reasoning)}",
        "Thresholds": _verdict(card),
        "Base model": _base_model(card),
        "Trained on": f"{number(data.train_rows)} rows ({inline(data.format)}), "
        f"{training.stage} with {training.finetuning_type}",
        "Served": f"up to {number(card.serving.max_model_len)} tokens of question and answer, "
        f"{size(model.size_bytes)}, {model.dtype or 'number format not known'}",
        "Digest": f"`{model.digest}`",
        "Not filled in": f"[{missing} fields](#not-filled-in)" if missing else "nothing",
    }
    if card.serving.mode == "none":
        rows["Served"] = "no"
    return table(["", ""], [[f"**{name}**", value] for name, value in rows.items()])


def _verdict(card: Card) -> str:
    asked = [each for each in card.results if each.met is not None]
    failed = [inline(each.title).lower() for each in asked if not each.met]
    if not asked:
        return "none set"
    return f"**not met**: {', '.join(failed)}" if failed else f"{len(asked)} of {len(asked)} met"


def _base_model(card: Card) -> str:
    base = card.base_model
    kind = inline(base.architecture or "architecture not known")
    return f"{inline(base.name)} ({kind}, {_parameters(base.parameters)}) from `{base.source}`"


def _parameters(count: int | None) -> str:
    if count is None:
        return "number of parameters not known"
    return f"{count / 1e9:.3g} B parameters" if count >= 1e9 else f"{count / 1e6:.3g} M parameters"


def _results(card: Card) -> str:
    rows = []
    for each in card.results:
        threshold = f"{each.rule} {number(each.threshold)}" if each.rule else "–"
        verdict = {True: "yes", False: "**no**", None: "–"}[each.met]
        rows.append([inline(each.title), number(each.value), threshold, verdict])
    return table(["Measure", "Value", "Threshold", "Met"], rows)


def _answers(card: Card, most: int | None = None) -> list[str]:
    return [f"**{inline(each.question)}**\n\n{quote(each.text)}" for each in card.answers[:most]]


def _data(card: Card) -> str:
    data, known = card.dataset, card.dataset.statistics
    lengths = (known.length.min, known.length.p50, known.length.p95, known.length.max)
    rows = [
        ["Rows trained on", number(data.train_rows)],
        ["Rows held out", number(data.held_out_rows)],
        ["Format", inline(data.format)],
        ["Tokens", number(known.tokens)],
        ["Duplicate rows", number(known.duplicates)],
        ["Length in tokens (least / median / 95 % / greatest)", " / ".join(map(number, lengths))],
        ["Cut off", f"{number(known.rows_over_cutoff)} rows over {number(known.cutoff_len)} tokens"],
    ]
    return table(["Measure", "Value"], rows)


def _training(card: Card) -> list[str]:
    training = card.training
    rows = [
        ["Loss, first to last", f"{number(training.first_loss)} → {number(training.final_loss)}"],
        ["Steps", number(training.steps)],
        ["Tokens seen", number(training.tokens)],
        ["Compute", _compute(card)],
        ["Time", number(_rounded(training.seconds), "s")],
        ["Peak memory", size(training.peak_memory_bytes)],
        ["Chat template", inline(training.template)],
        ["Software", inline(", ".join(f"{name} {is_}" for name, is_ in training.engine_versions.items()))],
    ]
    picture = f"![Training and held-out loss by step]({training.curves})"
    recipe = f"Recipe, from `{training.recipe_origin}`:\n\n{code(_yaml(training.recipe), 'yaml')}"
    return [table(["Measure", "Value"], rows), *([picture] if training.curves else []), recipe]


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def _compute(card: Card) -> str:
    rule = card.general_purpose_provider
    if rule is None:
        return "–"
    over = "more" if rule.exceeded else "less"
    return (
        f"{rule.flop:.3g} FLOP, {over} than the {rule.threshold_flop:.3g} FLOP from which whoever "
        f"fine-tunes provides a general-purpose model ({inline(rule.source)})"
    )


def _yaml(recipe: Mapping[str, JsonValue]) -> str:
    return str(yaml.safe_dump(dict(recipe), sort_keys=False))


def _lineage(card: Card) -> str:
    titles = {
        "base_model": "Base model",
        "dataset": "Dataset",
        "recipe": "Recipe (fingerprint of the training)",
        "adapter": "Adapter",
        "merged_model": "Merged model",
    }
    digests = [(title, getattr(card.lineage, name)) for name, title in titles.items()]
    rows = [[title, f"`{_short(digest)}`", f"`{digest}`"] for title, digest in digests if digest]
    return table(["What", "Short", "Digest"], rows)


def _short(digest: str) -> str:
    """Enough to tell it apart by eye."""
    return digest.removeprefix("sha256:")[:SHORT_DIGEST]


def _missing(card: Card) -> list[str]:
    if not card.missing:
        return []
    rows = [
        [inline(each.title), inline(each.why), inline(each.reference), each.remedy] for each in card.missing
    ]
    intro = "Nobody has said this yet. The points are those of the EU AI Act, Regulation (EU) 2024/1689."
    return ["## Not filled in", intro, table(["What", "What it does", "Asked by", "Where to write it"], rows)]
