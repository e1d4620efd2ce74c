"""How a file's columns carry a conversation: LLaMA-Factory's dataset formats.

A `Layout` holds what an entry of LLaMA-Factory's `dataset_info.json` says (`data/parser.py` there, and
its `data/README.md`). Without such an entry the layout is inferred from the columns.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal

Formatting = Literal["alpaca", "sharegpt", "openai"]
Format = Literal["alpaca", "sharegpt", "openai", "preference", "kto", "text"]
Stage = Literal["sft", "dpo", "rm", "kto", "pt"]

FORMATS_OF_STAGE: dict[str, tuple[Format, ...]] = {
    "sft": ("alpaca", "sharegpt", "openai"),
    "dpo": ("preference",),
    "rm": ("preference",),
    "kto": ("kto",),
    "pt": ("text",),
}
MASKED = "masked"
"""The key of a message that is not learned from, in what is written for the engine."""
MASKED_SHAREGPT = "sharegpt_masked"
"""The formatting of such rows: LLaMA-Factory does not know it, so it never learns from them by accident."""
COLUMNS = (
    "prompt",
    "query",
    "response",
    "history",
    "messages",
    "system",
    "tools",
    "chosen",
    "rejected",
    "kto_tag",
)


@dataclass(frozen=True, kw_only=True)
class Tags:
    """The keys of a message and the names of its roles; None where a role has no name in this layout."""

    role_tag: str = "from"
    content_tag: str = "value"
    user_tag: str | None = "human"
    assistant_tag: str | None = "gpt"
    observation_tag: str | None = "observation"
    function_tag: str | None = "function_call"
    system_tag: str | None = "system"


OPENAI_TAGS = Tags(
    role_tag="role", content_tag="content", user_tag="user", assistant_tag="assistant", observation_tag="tool"
)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Which column holds what. A column that the format does not use is None.

    `masks`: messages say whether they are learned from (ShareGPT rows only).
    """

    formatting: Formatting
    ranking: bool = False
    prompt: str | None = None
    query: str | None = None
    response: str | None = None
    history: str | None = None
    messages: str | None = None
    system: str | None = None
    tools: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    kto_tag: str | None = None
    tags: Tags = Tags()
    masks: bool = False

    @property
    def format(self) -> Format:
        if self.ranking:
            return "preference"
        if self.kto_tag:
            return "kto"
        if self.formatting == "alpaca":
            return "alpaca" if self.response else "text"
        return self.formatting

    @cached_property
    def columns(self) -> dict[str, str]:
        """The columns in use: LLaMA-Factory's word for each, and its name in the file."""
        named = {column: getattr(self, column) for column in COLUMNS}
        return {column: name for column, name in named.items() if name}

    def entry(self, file_name: str) -> dict[str, Any]:
        """The entry of LLaMA-Factory's `dataset_info.json` that says all this of a file."""
        said: dict[str, Any] = {
            "file_name": file_name,
            "formatting": MASKED_SHAREGPT if self.masks else self.formatting,
            "columns": self.columns,
        }
        if self.ranking:
            said["ranking"] = True
        if self.formatting != "alpaca":
            said["tags"] = {tag.name: getattr(self.tags, tag.name) for tag in fields(Tags)}
        return said


TEXT = Layout(formatting="alpaca", prompt="text")


def conversation(format: Format, tags: Tags = Tags(), messages: str = "conversations") -> Layout:
    """The ShareGPT layout that can carry every row of a format but `text`."""
    pair, tagged = format == "preference", format == "kto"
    return Layout(
        formatting="sharegpt",
        ranking=pair,
        messages=messages,
        tools="tools",
        chosen="chosen" if pair else None,
        rejected="rejected" if pair else None,
        kto_tag="kto_tag" if tagged else None,
        tags=tags,
    )


def infer(columns: Iterable[str], first_row: Mapping[str, Any], stage: str) -> Layout | None:
    """The layout of a file with these columns, or None if they are those of no format."""
    found = set(columns)
    pair = {"chosen", "rejected"} <= found
    for column in ("messages", "conversations"):
        if column in found:
            return _inferred_conversation(column, found, first_row, pair)
    if "instruction" in found and (pair or "output" in found):
        return _inferred_alpaca(found, pair=pair and (stage in ("dpo", "rm") or "output" not in found))
    return TEXT if "text" in found else None


def combined(layouts: Iterable[Layout]) -> Layout | None:
    """One layout that reads every file, if the files only differ in columns that some leave out."""
    first, *others = layouts
    for other in others:
        alike = (other.formatting, other.format, other.tags) == (first.formatting, first.format, first.tags)
        if not alike or any(
            first.columns.get(name, column) != column for name, column in other.columns.items()
        ):
            return None
        changes: dict[str, Any] = other.columns
        first = replace(first, **changes)
    return first


def _inferred_alpaca(found: set[str], *, pair: bool) -> Layout:
    def present(column: str) -> str | None:
        return column if column in found else None

    return Layout(
        formatting="alpaca",
        ranking=pair,
        prompt="instruction",
        query=present("input"),
        response=None if pair else "output",
        history=present("history"),
        system=present("system"),
        tools=present("tools"),
        chosen="chosen" if pair else None,
        rejected="rejected" if pair else None,
        kto_tag=None if pair else present("kto_tag"),
    )


def _inferred_conversation(column: str, found: set[str], row: Mapping[str, Any], pair: bool) -> Layout:
    openai = _keys_of_first_message(row.get(column)) >= {"role"}
    return Layout(
        formatting="openai" if openai else "sharegpt",
        ranking=pair,
        messages=column,
        system="system" if "system" in found else None,
        tools="tools" if "tools" in found else None,
        chosen="chosen" if pair else None,
        rejected="rejected" if pair else None,
        kto_tag="kto_tag" if "kto_tag" in found and not pair else None,
        tags=OPENAI_TAGS if openai else Tags(),
    )


def _keys_of_first_message(messages: object) -> set[str]:
    if isinstance(messages, list) and messages and isinstance(messages[0], dict):
        return set(messages[0])
    return set()
