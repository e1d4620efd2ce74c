"""A comparison as Markdown, for the Dagster UI and whoever pastes it into a ticket."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from llm_assets.comparison.comparing import Change, Comparison, Named
from llm_assets.comparison.rows import RowChanges
from llm_assets.model_cards.markdown import inline, number, table

CELL_CHARACTERS = 200  # what the UI shows is kept long, and a row may hold personal data


def comparison_markdown(comparison: Comparison) -> str:
    """Sections in the order in which one decides: results, answers, data, what it was made with, card."""
    before, after = comparison.before, comparison.after
    parts = [f"**Version {number_of(after)}** compared with **version {number_of(before)}**"]
    parts.append(_metrics(comparison))
    if note := held_out_note(comparison.rows):
        parts.append(f"*{inline(note)}*")
    parts += _section("Answers", _answers(comparison))
    parts += _section("Data", _data(comparison))
    for title, changed in made_with(comparison):
        parts += _section(title, _changes(changed))
    return "\n\n".join(parts)


def number_of(version: Named) -> str:
    aliases = f" ({', '.join(version.aliases)})" if version.aliases else ""
    return f"{version.number}{aliases}"


def made_with(comparison: Comparison) -> list[tuple[str, Sequence[Change]]]:
    """The sections that are lists of changes; their order is the same everywhere."""
    return [
        ("Recipe", comparison.recipe),
        ("Base model", comparison.base),
        ("Engine versions", comparison.engines),
        ("Model card", comparison.card),
    ]


def counted(rows: RowChanges) -> str:
    """The rows in one sentence."""
    if not (rows.added or rows.removed or rows.changed or rows.moved):
        return f"the same {rows.before:,} rows"
    parts = [
        f"{count:,} {name}"
        for count, name in (
            (rows.added, "added"),
            (rows.removed, "removed"),
            (rows.changed, "with another answer"),
            (rows.moved, "moved between training and held-out"),
        )
        if count
    ]
    return f"{rows.before:,} rows, then {rows.after:,}: {', '.join(parts)}"


def held_out_note(rows: RowChanges) -> str:
    if rows.same_held_out:
        return ""
    return "The held-out rows are others, so the two held-out losses (eval_loss) do not compare."


def shown(value: Any) -> str:
    """A value of a recipe or a card as text; a dash where there is none."""
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def cut(text: str, characters: int = CELL_CHARACTERS) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"


def _section(title: str, body: str) -> Iterator[str]:
    yield f"#### {title}"
    yield body


def _metrics(comparison: Comparison) -> str:
    rows = [
        (inline(each.name), number(each.before), number(each.after), each.judgement)
        for each in comparison.metrics
    ]
    before, after = f"version {comparison.before.number}", f"version {comparison.after.number}"
    return table(["measure", before, after, ""], rows)


def _answers(comparison: Comparison) -> str:
    rows = [
        (
            _cell(each.question),
            _cell(each.before),
            "*the same*" if each.before == each.after else _cell(each.after),
        )
        for each in comparison.answers
    ]
    before, after = f"version {comparison.before.number}", f"version {comparison.after.number}"
    return table(["question", before, after], rows) if rows else "Nothing was asked."


def _data(comparison: Comparison) -> str:
    said = f"{counted(comparison.rows)}."
    samples = [
        (each.kind, _cell(each.asked), _cell(each.before), _cell(each.after))
        for each in comparison.rows.samples
    ]
    digests = f"`{str(comparison.dataset.before)[:19]}` → `{str(comparison.dataset.after)[:19]}`"
    head = said if comparison.dataset.before == comparison.dataset.after else f"{said} {digests}"
    return head + ("\n\n" + table(["row", "asks", "before", "after"], samples) if samples else "")


def _changes(changed: Sequence[Change]) -> str:
    if not changed:
        return "the same"
    return table(
        ["", "before", "after"],
        [(inline(each.name), _cell(each.before), _cell(each.after)) for each in changed],
    )


def _cell(value: Any) -> str:
    return inline(cut(shown(value)))
