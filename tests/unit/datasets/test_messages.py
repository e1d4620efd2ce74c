"""What stands in a message beside its role and text: followed, refused by line, or remarked; never lost."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from llm_assets.datasets.held_out import held_out_rows
from llm_assets.datasets.messages import LINKS, REFUSED, SWITCHES
from llm_assets.datasets.mistakes import DatasetError
from llm_assets.datasets.preparation import PreparedDataset
from llm_assets.datasets.remarks import MORE, MOST_OF_FILE
from llm_assets.datasets.sources import REFUSED_COLUMNS
from tests.unit.datasets.conftest import questions, rows_of, write_rows

Prepared = Callable[..., PreparedDataset]
Row = dict[str, Any]
CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
OFF, ON = (0, 0.0, False), (1, 1.0, True)


def openai(question: Row | None = None, answer: Row | None = None, **others: Any) -> Row:
    """A row with more keys in its question or its answer."""
    asked = {"role": "user", "content": "a"} | (question or {})
    return {"messages": [asked, {"role": "assistant", "content": "b"} | (answer or {})], **others}


def sharegpt(question: Row | None = None, answer: Row | None = None, **others: Any) -> Row:
    asked = {"from": "human", "value": "a"} | (question or {})
    return {"conversations": [asked, {"from": "gpt", "value": "b"} | (answer or {})], **others}


def preference(question: Row | None = None, answer: Row | None = None, **others: Any) -> Row:
    row = openai(question)
    row["chosen"] = {"role": "assistant", "content": "b"} | (answer or {})
    return {
        **row,
        "messages": row["messages"][:1],
        "rejected": {"role": "assistant", "content": "c"},
        **others,
    }


def desired(question: Row | None = None, answer: Row | None = None, **others: Any) -> Row:
    return openai(question, answer, kto_tag=True, **others)


FORMATS: list[tuple[str, Callable[..., Row]]] = [
    ("sft", openai),
    ("sft", sharegpt),
    ("dpo", preference),
    ("rm", preference),
    ("kto", desired),
]
each_format = pytest.mark.parametrize(("stage", "make"), FORMATS, ids=lambda value: str(value)[:20])


def told(result: PreparedDataset) -> list[tuple[str, int]]:
    return [(remark.text, remark.rows) for remark in result.remarks]


@each_format
@pytest.mark.parametrize("key", sorted(REFUSED))
def test_a_key_that_would_change_what_is_learned_is_refused_with_its_line(
    zone: Path, prepared: Prepared, stage: str, make: Callable[..., Row], key: str
) -> None:
    write_rows(zone / "rows.jsonl", [make(), make(answer={key: None}), make(answer={key: "x"})])
    with pytest.raises(DatasetError, match=rf"rows\.jsonl:3: .*{key}: would not be learned from; ") as caught:
        prepared(stage)
    assert caught.value.total == 1


@each_format
@pytest.mark.parametrize("key", ["name", "timestamp", "annotator", "prefix"])
def test_any_other_key_is_remarked_with_a_count(
    zone: Path, prepared: Prepared, stage: str, make: Callable[..., Row], key: str
) -> None:
    given = [make({key: "kim"}), make(), make({key: None}), make({key: ""}), make({key: "lee"})]
    write_rows(zone / "rows.jsonl", given)
    result = prepared(stage, held_out_fraction=0)
    column = "conversations" if make is sharegpt else "messages"
    assert told(result) == [(f"{column}: the key `{key}` of its messages is not used", 2)]
    assert (result.remarks[0].file, result.remarks[0].line) == ("rows.jsonl", 1)


@each_format
@pytest.mark.parametrize("column", sorted(REFUSED_COLUMNS))
def test_a_column_that_would_change_what_is_learned_is_refused_where_it_is_filled(
    zone: Path, prepared: Prepared, stage: str, make: Callable[..., Row], column: str
) -> None:
    write_rows(zone / "rows.jsonl", [make(**{column: []}), make(**{column: None}), make(**{column: ["a"]})])
    with pytest.raises(DatasetError, match=rf"rows\.jsonl:3: {column}: would not be learned from") as caught:
        prepared(stage)
    assert caught.value.total == 1


@pytest.mark.parametrize(
    ("stage", "row"),
    [
        ("sft", {"instruction": "<image>a", "output": "b", "images": ["a.png"]}),
        ("kto", {"instruction": "a", "output": "b", "kto_tag": True, "audios": ["a.wav"]}),
        ("dpo", {"instruction": "a", "chosen": "b", "rejected": "c", "videos": ["a.mp4"]}),
        ("pt", {"text": "a", "image": {"bytes": "x"}}),
    ],
)
@pytest.mark.parametrize("declared", [True, False])
def test_media_are_refused_with_and_without_a_dataset_info(
    zone: Path, prepared: Prepared, stage: str, row: Row, declared: bool
) -> None:
    write_rows(zone / "rows.jsonl", [row])
    media = [*row][-1]
    if declared:
        columns = {"prompt": next(iter(row)), media: media}
        (zone / "dataset_info.json").write_text(
            json.dumps({"a": {"file_name": "rows.jsonl", "columns": columns}})
        )
    with pytest.raises(
        DatasetError, match=rf"{media}: (is not taken|would not be learned from|unknown column)"
    ):
        prepared(stage)


@pytest.mark.parametrize("make", [openai, sharegpt])
@pytest.mark.parametrize("key", SWITCHES)
@pytest.mark.parametrize("off", OFF)
def test_an_answer_that_is_not_to_be_learned_from_is_masked(
    zone: Path, tmp_path: Path, prepared: Prepared, make: Callable[..., Row], key: str, off: object
) -> None:
    masked, plain = make(answer={key: off}), make(answer={key: 1})
    column = next(iter(masked))
    write_rows(zone / "rows.jsonl", [{column: masked[column] + plain[column]}, plain])
    assert prepared(held_out_fraction=0).remarks == ()
    first, second = rows_of(tmp_path / "out/train.jsonl")
    assert [turn["masked"] for turn in first[column]] == [False, True, False, False]
    assert [turn["masked"] for turn in second[column]] == [False, False]
    info = json.loads((tmp_path / "out/dataset_info.json").read_text())["train"]
    assert info["formatting"] == "sharegpt_masked"


@pytest.mark.parametrize("make", [openai, sharegpt])
@pytest.mark.parametrize("key", SWITCHES)
@pytest.mark.parametrize("value", [0.5, 2, -1, "no", [0]])
def test_half_a_weight_is_refused(
    zone: Path, prepared: Prepared, make: Callable[..., Row], key: str, value: object
) -> None:
    write_rows(zone / "rows.jsonl", [make(answer={key: value})])
    with pytest.raises(DatasetError, match=rf"rows\.jsonl:1: .*\[1\]\.{key}: .* give 0 .* or 1"):
        prepared()


@pytest.mark.parametrize("key", SWITCHES)
def test_a_question_is_not_learned_whatever_it_says(
    zone: Path, tmp_path: Path, prepared: Prepared, key: str
) -> None:
    write_rows(zone / "rows.jsonl", [openai({key: 0})])
    prepared(held_out_fraction=0)
    assert rows_of(tmp_path / "out/train.jsonl") == [openai()]
    for on in ON:
        write_rows(zone / "rows.jsonl", [openai({key: on})])
        with pytest.raises(DatasetError, match=rf"messages\[0\]\.{key}: asks to learn a question"):
            prepared()


def test_without_an_answer_to_learn_a_row_is_refused(zone: Path, prepared: Prepared) -> None:
    write_rows(zone / "rows.jsonl", [openai(), openai(answer={"weight": 0})])
    with pytest.raises(DatasetError, match=r"rows\.jsonl:2: messages: no answer of it is to be learned from"):
        prepared()
    write_rows(zone / "rows.jsonl", [desired(answer={"weight": 0})])
    with pytest.raises(DatasetError, match=r"rows\.jsonl:1: messages: no answer of it is to be learned from"):
        prepared("kto")
    write_rows(zone / "rows.jsonl", [preference(answer={"weight": 0})])
    with pytest.raises(DatasetError, match="chosen: is not to be learned from"):
        prepared("dpo")


@pytest.mark.parametrize(("stage", "tag"), [("dpo", {}), ("kto", {"kto_tag": True})])
def test_in_these_stages_no_earlier_answer_is_learned_anyway(
    zone: Path, tmp_path: Path, prepared: Prepared, stage: str, tag: Row
) -> None:
    end = preference() if stage == "dpo" else desired()
    end["messages"] = openai(answer={"weight": 0})["messages"] + end["messages"]
    write_rows(zone / "rows.jsonl", [end])
    prepared(stage, held_out_fraction=0)
    (row,) = rows_of(tmp_path / "out/train.jsonl")
    assert all(turn.keys() == {"role", "content"} for turn in row["messages"])


def test_what_follows_the_last_answer_to_learn_is_dropped_and_said(
    zone: Path, tmp_path: Path, prepared: Prepared
) -> None:
    rows = openai()["messages"] + openai(answer={"weight": 0})["messages"]
    write_rows(zone / "rows.jsonl", [{"messages": rows}])
    result = prepared(held_out_fraction=0)
    assert rows_of(tmp_path / "out/train.jsonl") == [openai()]
    assert told(result) == [
        ("what comes after the last answer to learn from is dropped: nothing is learned there", 1)
    ]


def test_masks_and_a_recipe_that_learns_the_questions_exclude_each_other(
    zone: Path, prepared: Prepared
) -> None:
    masked = openai(answer={"weight": 0})["messages"] + openai()["messages"]
    write_rows(zone / "rows.jsonl", [openai(), {"messages": masked}])
    with pytest.raises(DatasetError, match=r"rows\.jsonl:2: messages: .* train_on_prompt learns everything"):
        prepared(train_on_prompt=True)
    write_rows(zone / "rows.jsonl", [openai(), openai()])
    assert prepared(train_on_prompt=True).rows == 2


def test_what_was_prepared_with_masks_can_be_read_again(
    zone: Path, tmp_path: Path, prepared: Prepared
) -> None:
    masked = openai(answer={"weight": 0})["messages"] + openai()["messages"]
    write_rows(zone / "rows.jsonl", [{"messages": masked}, *(openai({"content": f"{i}"}) for i in range(9))])
    prepared()
    written = {file.name: file.read_bytes() for file in (tmp_path / "out").glob("*.json*")}
    assert len(held_out_rows(tmp_path / "out", 9)) == 2
    (zone / "rows.jsonl").write_bytes(written["train.jsonl"])
    entry = json.loads(written["dataset_info.json"])["train"] | {"file_name": "rows.jsonl"}
    (zone / "dataset_info.json").write_text(json.dumps({"rows": entry}))
    prepared(held_out_fraction=0)
    assert (tmp_path / "out/train.jsonl").read_bytes() == written["train.jsonl"]


def test_rows_with_masks_beside_files_of_another_format(
    zone: Path, tmp_path: Path, prepared: Prepared
) -> None:
    write_rows(zone / "a.jsonl", questions(1))
    masked = openai(answer={"weight": 0})["messages"] + openai()["messages"]
    write_rows(zone / "b.jsonl", [{"messages": masked}])
    prepared(held_out_fraction=0)
    flags = [
        [turn["masked"] for turn in row["conversations"]] for row in rows_of(tmp_path / "out/train.jsonl")
    ]
    assert flags == [[False, False], [False, True, False, False]]


def with_call(**answer: Any) -> list[Row]:
    call = {"role": "assistant", "tool_calls": [CALL], **answer}
    return [
        openai()["messages"][0],
        call,
        {"role": "tool", "content": "2", "tool_call_id": "1", "name": "add"},
    ]


def test_text_beside_a_call_is_dropped_and_said_with_a_count(
    zone: Path, tmp_path: Path, prepared: Prepared
) -> None:
    answer = openai()["messages"][1:]
    rows = [with_call(content=content) + answer for content in ("Let me look.", None, "", "I look.")]
    write_rows(zone / "rows.jsonl", [{"messages": row} for row in rows])
    result = prepared(held_out_fraction=0)
    assert told(result) == [("the text beside a tool call is dropped, as LLaMA-Factory does", 2)]
    assert "look" not in (tmp_path / "out/train.jsonl").read_text()


def test_responses_after_the_last_answer_are_dropped_and_said(zone: Path, prepared: Prepared) -> None:
    write_rows(zone / "rows.jsonl", [{"messages": with_call(content=None)}])
    assert told(prepared()) == [
        ("tool responses after the last answer are dropped, as LLaMA-Factory does", 1)
    ]


def test_tool_calls_in_rows_that_are_not_openais_are_refused(zone: Path, prepared: Prepared) -> None:
    write_rows(zone / "rows.jsonl", [sharegpt(answer={"tool_calls": [CALL]})])
    with pytest.raises(
        DatasetError, match=r"conversations\[1\]\.tool_calls: is read with `formatting: openai`"
    ):
        prepared()


def test_tool_calls_of_a_question_are_refused(zone: Path, prepared: Prepared) -> None:
    write_rows(zone / "rows.jsonl", [openai({"tool_calls": []}), openai({"tool_calls": [CALL]})])
    with pytest.raises(
        DatasetError, match=r"rows\.jsonl:2: messages\[0\]\.tool_calls: is of the assistant alone"
    ):
        prepared()


def test_a_system_column_beside_a_system_message_is_said_to_be_unused(zone: Path, prepared: Prepared) -> None:
    system = [{"role": "system", "content": "s"}]
    rows = [{"messages": system + openai()["messages"], "system": text} for text in ("s", "", "other")]
    write_rows(zone / "rows.jsonl", rows)
    assert told(prepared()) == [
        ("the system column is not used where the conversation has a system message", 1)
    ]


def test_parts_of_text_are_one_text_as_they_are_served(
    zone: Path, tmp_path: Path, prepared: Prepared
) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    write_rows(zone / "rows.jsonl", [openai({"content": parts}, {"content": parts[:1]})])
    assert prepared(held_out_fraction=0).remarks == ()
    assert rows_of(tmp_path / "out/train.jsonl") == [openai({"content": "a\nb"}, {"content": "a"})]


@pytest.mark.parametrize(
    "part", [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "input_audio"}, {}]
)
def test_any_other_part_is_refused(zone: Path, prepared: Prepared, part: Row) -> None:
    write_rows(zone / "rows.jsonl", [openai({"content": [{"type": "text", "text": "a"}, part]})])
    with pytest.raises(DatasetError, match=r"messages\[0\]\.content: has a part of the type"):
        prepared()
    write_rows(zone / "rows.jsonl", [openai({"content": [{"type": "text", "value": "a"}]})])
    with pytest.raises(DatasetError, match=r"messages\[0\]\.content: has a part without its text"):
        prepared()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("I am {{name}}.", "{{name}}"),
        ("By {{ author }}.", "{{author}}"),
        ("Order {{Order Number}}", "{{Order Number}}"),
        ("<image>Who?", "<image>"),
        ("<video>", "<video>"),
        ("<audio>", "<audio>"),
    ],
)
@pytest.mark.parametrize("place", ["instruction", "input", "output", "system"])
def test_a_word_that_was_to_be_filled_in_is_remarked(
    zone: Path, prepared: Prepared, text: str, word: str, place: str
) -> None:
    row = {"instruction": "a", "input": "b", "output": "c", "system": "d"}
    write_rows(zone / "rows.jsonl", [row, row | {place: text}, row | {place: f"{text} {text}"}])
    (remark,) = prepared().remarks
    assert (remark.kind, remark.line, remark.rows) == ("placeholder", 2, 2)
    assert word in remark.text


def test_braces_that_are_no_placeholder_are_left_alone(zone: Path, prepared: Prepared) -> None:
    texts = ['{"a": {"b": {}}}', "{{}}", "{{1}}", "{% if x %}", "{{ a | b }}", "{{\n}}", "x}} {{"]
    write_rows(zone / "rows.jsonl", [{"instruction": text, "output": text} for text in texts])
    assert prepared().remarks == ()


def test_a_file_with_thousands_of_different_remarks_keeps_the_first(zone: Path, prepared: Prepared) -> None:
    rows = [{"instruction": f"{{{{word{letter}}}}}", "output": "b"} for letter in range(500)]
    write_rows(zone / "rows.jsonl", rows)
    remarks = prepared().remarks
    assert len(remarks) == MOST_OF_FILE + 1
    assert (remarks[-1].text, remarks[-1].rows) == (MORE.text, 500 - MOST_OF_FILE)


TEXT = some.text(some.characters(exclude_categories=["Cs"]), max_size=10)
KEYS = some.one_of(
    some.sampled_from(
        sorted({*REFUSED, *REFUSED_COLUMNS, *SWITCHES, *LINKS, "name", "system", "tools", "content"})
    ),
    some.from_regex(r"[a-z]{1,8}", fullmatch=True),
)
MORE_KEYS = some.sets(KEYS, max_size=3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(
    form=some.sampled_from(FORMATS),
    in_row=MORE_KEYS,
    in_question=MORE_KEYS,
    in_answer=MORE_KEYS,
    asked=TEXT,
    answered=TEXT,
)
def test_whatever_a_row_says_is_written_refused_or_remarked_by_its_name(
    zone: Path,
    tmp_path: Path,
    prepared: Prepared,
    form: tuple[str, Callable[..., Row]],
    in_row: set[str],
    in_question: set[str],
    in_answer: set[str],
    asked: str,
    answered: str,
) -> None:
    """Whatever the keys are called: a link between call and response alone may go unsaid."""
    stage, make = form
    text = "content" if make is not sharegpt else "value"
    given_row = make(
        {key: f"question {key}" for key in in_question} | {text: f"{asked} q"},
        {key: f"answer {key}" for key in in_answer} | {text: f"{answered} a"},
    )
    in_row = in_row - set(given_row)
    given_row |= {key: f"row {key}" for key in in_row}
    write_rows(zone / "rows.jsonl", [given_row])
    try:
        result = prepared(stage, held_out_fraction=0)
    except DatasetError as error:
        said = str(error)
        assert any(f"{key}: " in said for key in (*in_row, *in_question, *in_answer)), said
        return
    written = (tmp_path / "out/train.jsonl").read_text()
    said = " ".join(remark.text for remark in result.remarks)
    assert json.dumps(f"{asked} q", ensure_ascii=False) in written
    assert json.dumps(f"{answered} a", ensure_ascii=False) in written
    for place, keys in (("row", in_row), ("question", in_question), ("answer", in_answer)):
        unsaid = {text} if place != "row" else set()
        unsaid |= set(LINKS) if make is not sharegpt and place != "row" else set()
        for key in keys - unsaid:
            assert f"{place} {key}" in written or f"`{key}`" in said or f"column {key} " in said
