"""Held-out rows of a prepared dataset, read back as messages."""

from collections.abc import Callable
from pathlib import Path

from llm_assets.datasets.held_out import held_out_rows
from llm_assets.datasets.preparation import PreparedDataset
from tests.unit.datasets.conftest import questions, rows_of, write_rows

Prepare = Callable[..., PreparedDataset]


def test_rows_that_training_did_not_see_come_back_as_messages(
    zone: Path, tmp_path: Path, prepared: Prepare
) -> None:
    write_rows(zone / "rows.jsonl", questions(20))
    prepared()
    found = held_out_rows(tmp_path / "out", 3)
    assert len(found) == 3
    for row, written in zip(found, rows_of(tmp_path / "out" / "held_out.jsonl"), strict=False):
        assert row["messages"] == [{"role": "user", "content": written["instruction"]}]
        assert row["reply"] == written["output"]
    assert len(held_out_rows(tmp_path / "out", 100)) == 4


def test_conversations_keep_their_system_message_and_preferences_give_the_chosen_reply(
    zone: Path, tmp_path: Path, prepared: Prepare
) -> None:
    turns = [{"from": "system", "value": "Be kind."}, {"from": "human", "value": "Hello?"}]
    answers = {"chosen": {"from": "gpt", "value": "Hi!"}, "rejected": {"from": "gpt", "value": "No."}}
    rows = [
        {"conversations": [*turns[:1], {**turns[1], "value": f"Hello {i}?"}], **answers} for i in range(9)
    ]
    write_rows(zone / "rows.jsonl", rows)
    prepared(stage="dpo")
    [first, *_] = held_out_rows(tmp_path / "out", 9)
    assert [each["role"] for each in first["messages"]] == ["system", "user"]
    assert first["messages"][0]["content"] == "Be kind."
    assert first["reply"] == "Hi!"


def test_plain_text_has_no_messages_and_tools_are_left_out(
    zone: Path, tmp_path: Path, prepared: Prepare
) -> None:
    write_rows(zone / "rows.jsonl", [{"text": f"Plain text number {i}."} for i in range(10)])
    prepared(stage="pt")
    [first, *_] = held_out_rows(tmp_path / "out", 1)
    assert first["messages"] == []
    assert first["reply"].startswith("Plain text")
    rows = [
        {
            "conversations": [{"from": "human", "value": f"{i}?"}, {"from": "gpt", "value": "Yes."}],
            "tools": '[{"name": "clock", "description": "", "parameters": {}}]',
        }
        for i in range(10)
    ]
    write_rows(zone / "rows.jsonl", rows)
    prepared()
    assert held_out_rows(tmp_path / "out", 9) == []


def test_without_a_held_out_part_there_is_none(zone: Path, tmp_path: Path, prepared: Prepare) -> None:
    write_rows(zone / "rows.jsonl", questions(5))
    prepared(held_out_fraction=0)
    assert held_out_rows(tmp_path / "out", 9) == []
