"""The entry of `dataset_info.json` for columns that other tools call otherwise, by the recipe's stage."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

ASKED = ("prompt", "question", "query", "instruction", "input", "user", "human", "ask", "problem", "request")
ANSWERED = ("response", "answer", "completion", "output", "assistant", "reply", "target", "solution", "label")
CHOSEN = ("chosen", "preferred", "accepted", "good", "better", "win")
REJECTED = ("rejected", "dispreferred", "refused", "bad", "worse", "lose")
TAGGED = ("kto_tag", "label", "desirable", "is_desirable", "liked", "good", "thumbs_up", "rating")
TEXTS = ("text", "content", "document", "body", "raw_content", "page_content", "passage", "sentence", "code")
MESSAGES = ("messages", "conversations", "conversation", "dialog", "dialogue", "chat", "turns")

USUAL: Mapping[str, Mapping[str, Sequence[str]]] = {
    "sft": {"prompt": ASKED, "response": ANSWERED},
    "dpo": {"prompt": ASKED, "chosen": CHOSEN, "rejected": REJECTED},
    "rm": {"prompt": ASKED, "chosen": CHOSEN, "rejected": REJECTED},
    "kto": {"prompt": ASKED, "response": ANSWERED, "kto_tag": TAGGED},
    "pt": {"prompt": TEXTS},
}
"""LLaMA-Factory's columns of each stage, and how others call them, the likeliest first."""
ALSO = {
    "query": ("context", "input"),
    "system": ("system", "system_prompt", "system_message"),
    "tools": ("tools",),
}
MEANT = {
    "prompt": "what is asked",
    "response": "what is answered",
    "chosen": "the good answer",
    "rejected": "the bad one",
    "kto_tag": "true for a good answer",
}


def hint(file_name: str, stage: str, row: Mapping[str, object]) -> str:
    """The entry to write, whole where the columns are known; else what is to be filled in.

    `row` is the first one of the file.
    """
    if stage != "pt":
        for column in (name for name in row if name.lower() in MESSAGES):
            if _is_conversation(row[column]):
                return _entry(
                    file_name, stage, {"messages": column} | _of_conversation(stage, row), row[column]
                )
    columns: dict[str, str] = {}
    for column, names in USUAL[stage].items():
        found = _found(names, row, columns.values())
        columns[column] = found or f"<your column of {MEANT[column] if stage != 'pt' else 'the text'}>"
    if stage != "pt":
        also = {column: _found(names, row, columns.values()) for column, names in ALSO.items()}
        columns |= {column: name for column, name in also.items() if name}
    return _entry(file_name, stage, columns, None)


def _entry(file_name: str, stage: str, columns: Mapping[str, str], messages: Any) -> str:
    entry: dict[str, object] = {"file_name": file_name, "columns": dict(columns)}
    if messages is not None:
        entry["formatting"] = "openai" if "role" in messages[0] else "sharegpt"
    if stage in ("dpo", "rm"):
        entry["ranking"] = True
    return json.dumps({"my_data": entry}, ensure_ascii=False)


def _of_conversation(stage: str, row: Mapping[str, object]) -> dict[str, str]:
    """The columns that a stage needs beside the messages."""
    wanted = {
        name: names for name, names in USUAL[stage].items() if name in ("chosen", "rejected", "kto_tag")
    }
    return {column: _found(names, row, ()) or f"<{MEANT[column]}>" for column, names in wanted.items()}


def _found(names: Sequence[str], row: Mapping[str, object], taken: Any) -> str | None:
    by_name = {column.lower(): column for column in row if column not in taken}
    return next((by_name[name] for name in names if name in by_name), None)


def _is_conversation(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)
