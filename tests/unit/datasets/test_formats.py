"""Rows of every format that LLaMA-Factory knows: what they say, and what it would have dropped in silence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_assets.datasets.mistakes import DatasetError
from llm_assets.datasets.preparation import PreparedDataset
from tests.unit.datasets.conftest import rows_of, write_rows

Prepared = Callable[..., PreparedDataset]
CALL = json.dumps({"name": "add", "arguments": {"a": 1}})
TOOLS = [{"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {}}}]


def sharegpt(*turns: tuple[str, str], **others: Any) -> dict[str, Any]:
    return {"conversations": [{"from": role, "value": text} for role, text in turns], **others}


def openai(*turns: tuple[str, str], **others: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in turns], **others}


@pytest.mark.parametrize(
    ("stage", "row", "format", "written"),
    [
        ("sft", {"instruction": "a", "output": "b"}, "alpaca", {"instruction": "a", "output": "b"}),
        (
            "sft",
            {"instruction": "a", "output": "b", "history": [["c", "d"]], "system": None},
            "alpaca",
            sharegpt(("human", "c"), ("gpt", "d"), ("human", "a"), ("gpt", "b")),
        ),
        ("sft", sharegpt(("human", "a"), ("gpt", "b")), "sharegpt", sharegpt(("human", "a"), ("gpt", "b"))),
        (
            "sft",
            sharegpt(("human", "a"), ("gpt", "b"), system="s", id=7),
            "sharegpt",
            sharegpt(("system", "s"), ("human", "a"), ("gpt", "b")),
        ),
        (
            "sft",
            sharegpt(
                ("human", "a"), ("function_call", CALL), ("observation", "2"), ("gpt", "b"), tools=TOOLS
            ),
            "sharegpt",
            sharegpt(
                ("human", "a"),
                ("function_call", CALL),
                ("observation", "2"),
                ("gpt", "b"),
                tools=json.dumps(TOOLS),
            ),
        ),
        (
            "sft",
            openai(("system", "s"), ("user", "a"), ("assistant", "b")),
            "openai",
            openai(("system", "s"), ("user", "a"), ("assistant", "b")),
        ),
        (
            "dpo",
            {"instruction": "a", "input": None, "chosen": "b", "rejected": "c", "output": "x"},
            "preference",
            {"instruction": "a", "input": "", "chosen": "b", "rejected": "c"},
        ),
        (
            "rm",
            sharegpt(
                ("human", "a"), chosen={"from": "gpt", "value": "b"}, rejected={"from": "gpt", "value": "c"}
            ),
            "preference",
            sharegpt(
                ("human", "a"), chosen={"from": "gpt", "value": "b"}, rejected={"from": "gpt", "value": "c"}
            ),
        ),
        (
            "kto",
            {"instruction": "a", "output": "b", "kto_tag": False},
            "kto",
            {"instruction": "a", "output": "b", "kto_tag": False},
        ),
        (
            "kto",
            openai(("user", "a"), ("assistant", "b"), kto_tag=True),
            "kto",
            openai(("user", "a"), ("assistant", "b"), kto_tag=True),
        ),
        ("pt", {"text": "a", "url": "u"}, "text", {"text": "a"}),
    ],
)
def test_each_format_is_inferred_from_its_columns(
    zone: Path, tmp_path: Path, prepared: Prepared, stage: str, row: Any, format: str, written: Any
) -> None:
    write_rows(zone / "rows.jsonl", [row])
    assert prepared(stage, held_out_fraction=0).format == format
    assert rows_of(tmp_path / "out/train.jsonl") == [written]


def test_tool_calls_of_openai_become_function_calls_and_responses_one_observation(
    zone: Path, tmp_path: Path, prepared: Prepared
) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "tool_calls": [call, call]},
        {"role": "tool", "content": "2", "tool_call_id": "1"},
        {"role": "tool", "content": "3", "tool_call_id": "2"},
        {"role": "assistant", "content": "b"},
    ]
    write_rows(zone / "rows.jsonl", [{"messages": messages, "tools": TOOLS}])
    prepared(held_out_fraction=0)
    (row,) = rows_of(tmp_path / "out/train.jsonl")
    assert [turn["role"] for turn in row["messages"]] == ["user", "function_call", "tool", "assistant"]
    assert json.loads(row["messages"][1]["content"]) == [json.loads(CALL)] * 2
    assert row["messages"][2]["content"] == "2\n</tool_response>\n<tool_response>\n3"
    info = json.loads((tmp_path / "out/dataset_info.json").read_text())["train"]
    assert (info["formatting"], info["tags"]["observation_tag"]) == ("sharegpt", "tool")


@pytest.mark.parametrize(
    ("stage", "row", "message"),
    [
        ("sft", {"instruction": 5, "output": "b"}, "1: instruction: is a number; give a text"),
        ("sft", {"instruction": "a", "output": None}, "1: output: is null; give a text"),
        ("sft", {"instruction": "a", "input": ["b"], "output": "c"}, "1: input: is a list; give a text"),
        ("sft", {"output": "b"}, "the columns output are those of no format"),
        ("sft", {"instruction": "", "output": ""}, "1: the row is empty"),
        (
            "sft",
            {"instruction": "a", "output": "b", "history": [["c"]]},
            "1: history: round 1 is not a list of two",
        ),
        ("sft", {"instruction": "a", "output": "b", "tools": "["}, "1: tools: is not the JSON of a list"),
        ("sft", {"instruction": "\ud83d", "output": "b"}, "1: holds half a character"),
        ("kto", {"instruction": "a", "output": "b", "kto_tag": "yes"}, "1: kto_tag: is a text; give true"),
        (
            "sft",
            sharegpt(("gpt", "a"), ("human", "b")),
            "1: conversations: turn 1 .* is of the assistant; questions",
        ),
        ("sft", sharegpt(("human", "a")), "1: conversations: ends with a question"),
        ("sft", sharegpt(("human", "a"), ("human", "b")), "1: conversations: turn 2"),
        ("sft", sharegpt(("system", "a")), "1: conversations: holds no message"),
        (
            "sft",
            sharegpt(("human", "a"), ("bot", "b")),
            r"1: conversations\[1\].from: 'bot' is no role here; roles are",
        ),
        (
            "sft",
            sharegpt(("human", "a"), ("system", "b")),
            r"1: conversations\[1\].from: 'system' may only be the first",
        ),
        ("sft", {"conversations": "text"}, "1: conversations: is a text; give a list of messages"),
        (
            "sft",
            {"conversations": [{"from": "human"}]},
            r"1: conversations\[0\]: has no 'value'; it has from",
        ),
        (
            "sft",
            {"conversations": ["a"]},
            r"1: conversations\[0\]: is a text; give an object with from and value",
        ),
        (
            "sft",
            sharegpt(("human", "a"), ("function_call", "add 1"), ("observation", "x"), ("gpt", "y")),
            r"1: conversations\[1\].value: is not the JSON of a call",
        ),
        (
            "dpo",
            sharegpt(("human", "a"), ("gpt", "b"), chosen={"from": "gpt", "value": "c"}, rejected={}),
            "1: conversations: ends with an answer",
        ),
        (
            "dpo",
            sharegpt(
                ("human", "a"), chosen={"from": "human", "value": "c"}, rejected={"from": "gpt", "value": "c"}
            ),
            "1: chosen: is of the user",
        ),
        ("dpo", sharegpt(("human", "a"), chosen="b", rejected="c"), "1: chosen: is a text; give an object"),
        ("sft", openai(("user", "a"), ("developer", "b")), "'developer' is no role here"),
    ],
)
def test_a_row_that_the_engine_would_drop_is_refused_with_its_line(
    zone: Path, prepared: Prepared, stage: str, row: Any, message: str
) -> None:
    write_rows(zone / "rows.jsonl", [row])
    with pytest.raises(DatasetError, match=message):
        prepared(stage)


def test_kto_tags_of_csv_are_texts(zone: Path, tmp_path: Path, prepared: Prepared) -> None:
    (zone / "rows.csv").write_text("instruction,output,kto_tag\na,b,True\nc,d,false\n")
    prepared("kto", held_out_fraction=0)
    assert [row["kto_tag"] for row in rows_of(tmp_path / "out/train.jsonl")] == [True, False]
