"""Reads rows of LLaMA-Factory's alpaca layout: instruction, input, output, and a history before them.

What is taken is what `AlpacaDatasetConverter` takes. An empty output is one of these (and is
counted in the statistics), an output that is not a text is not: LLaMA-Factory would drop that row.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from llm_assets.datasets.examples import (
    Example,
    InvalidRow,
    Problem,
    Turn,
    desirable,
    invalid,
    kind,
    needed_text,
    optional_text,
    tools_text,
)
from llm_assets.datasets.layouts import Layout

Value = TypeVar("Value")


def read_alpaca(row: Mapping[str, object], layout: Layout) -> Example:
    """What the row says.

    Raises:
        InvalidRow: With every problem of the row.
    """
    problems: list[Problem] = []

    def field(read: Callable[[], Value]) -> Value | None:
        try:
            return read()
        except InvalidRow as error:
            problems.extend(error.problems)
            return None

    asked = field(lambda: _question(row, layout))
    history = field(lambda: _history(row, layout.history))
    answers = [field(lambda name=name: needed_text(row, name)) for name in _answers(layout)]  # type: ignore[misc]
    system = field(lambda: optional_text(row, layout.system))
    tools = field(lambda: tools_text(row, layout.tools))
    tag = field(lambda: desirable(row, str(layout.kto_tag))) if layout.kto_tag else None
    if not problems and not (asked or history or any(answers)):
        problems.append(Problem("", "the row is empty; give it a text or take it out"))
    if problems:
        raise InvalidRow(*problems)
    return Example(
        turns=(*(history or ()), Turn("user", asked or "")),
        answers=tuple(Turn("assistant", answer or "") for answer in answers),
        system=system or "",
        tools=tools or "",
        desirable=tag,
    )


def _answers(layout: Layout) -> list[str]:
    names = (layout.chosen, layout.rejected) if layout.ranking else (layout.response,)
    return [name for name in names if name]


def _question(row: Mapping[str, object], layout: Layout) -> str:
    query = optional_text(row, layout.query)
    if query and layout.prompt in row and row[str(layout.prompt)] is None:
        return query
    return "\n".join(filter(None, [needed_text(row, layout.prompt), query]))


def _history(row: Mapping[str, object], column: str | None) -> tuple[Turn, ...]:
    rounds = row.get(column) if column else None
    if rounds is None or rounds == "":
        return ()
    if not isinstance(rounds, list):
        raise invalid(str(column), f"is {kind(rounds)}; give a list of [question, answer]")
    turns: list[Turn] = []
    for number, pair in enumerate(rounds, 1):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise invalid(str(column), f"round {number} is not a list of two texts, [question, answer]")
        turns += [Turn("user", pair[0]), Turn("assistant", pair[1])]
    return tuple(turns)
