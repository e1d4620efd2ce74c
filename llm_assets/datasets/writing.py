"""Writes examples in a layout that LLaMA-Factory reads: the tenant's own columns wherever they can carry
every row of all files, else LLaMA-Factory's ShareGPT columns.

Each row gets the same columns with the same types, because Arrow, which reads them in the engine,
fixes the types by the first ten megabytes. A history (alpaca) would be an empty list there, so such rows
become conversations.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from llm_assets.datasets.examples import Example, Turn
from llm_assets.datasets.layouts import MASKED, TEXT, Layout, Tags, combined, conversation

ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def layout_to_write(layouts: Sequence[Layout]) -> Layout:
    """The layout for the rows of files in these layouts."""
    whole = combined(layouts)
    format = layouts[0].format
    if format == "text":
        return replace(TEXT, prompt=whole.prompt if whole else TEXT.prompt)
    if whole is None or whole.history:
        return conversation(format)
    if whole.formatting == "alpaca":
        return whole
    wanted = conversation(format, tags=_all_named(whole.tags), messages=str(whole.messages))
    own: dict[str, Any] = {column: name for column, name in whole.columns.items() if column != "system"}
    return replace(wanted, **own)


def written_row(
    row: Mapping[str, object], example: Example, source: Layout, target: Layout
) -> dict[str, object]:
    """The row in the target layout, without empty values."""
    if target.formatting != "alpaca":
        values = _conversation(example, target)
    elif target.format == "text":
        values = {str(target.prompt): example.turns[0].content}
    else:
        values = {name: row.get(name) for name in source.columns.values()}
        values |= {name: value for name, value in _typed(example, source).items() if name}
    return {name: value for name, value in values.items() if value not in ("", None)}


def filled(row: Mapping[str, object], target: Layout) -> dict[str, object]:
    """The row with all of the layout's columns, and each message with all of its keys."""
    whole = {name: row.get(name, "") for name in target.columns.values()}
    if target.masks:
        whole[str(target.messages)] = [{MASKED: False} | message for message in _messages(row, target)]
    return whole


def _messages(row: Mapping[str, object], target: Layout) -> list[dict[str, object]]:
    found = row[str(target.messages)]
    return found if isinstance(found, list) else []


def canonical(row: Mapping[str, object]) -> str:
    """One JSON text for one row: sorted keys, no spaces, one line."""
    return ENCODER.encode(row)


def _typed(example: Example, layout: Layout) -> dict[str | None, Any]:
    return {layout.tools: example.tools, layout.kto_tag: example.desirable}


def _conversation(example: Example, target: Layout) -> dict[str, object]:
    turns = [] if not example.system else [_message(target.tags.system_tag, example.system, target.tags)]
    turns += [_turn(turn, target.tags) for turn in example.turns]
    values: dict[str | None, Any] = _typed(example, target)
    if target.ranking:
        values[target.chosen], values[target.rejected] = (
            _turn(answer, target.tags) for answer in example.answers
        )
    else:
        turns += [_turn(answer, target.tags) for answer in example.answers]
    values[target.messages] = turns
    return {name: value for name, value in values.items() if name}


def _turn(turn: Turn, tags: Tags) -> dict[str, object]:
    message = _message(getattr(tags, f"{turn.role}_tag"), turn.content, tags)
    return message | {MASKED: True} if turn.masked else message


def _message(name: str | None, content: str, tags: Tags) -> dict[str, object]:
    return {tags.role_tag: str(name), tags.content_tag: content}


def _all_named(tags: Tags) -> Tags:
    """The tags with a name for every role: a row may need one that its file had no name for (system)."""
    named = {tag.name: getattr(tags, tag.name) or getattr(Tags(), tag.name) for tag in fields(Tags)}
    return Tags(**named)
