"""A landing zone with a `dataset_info.json` of its own, as LLaMA-Factory's users have them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_assets.datasets.mistakes import DatasetError
from llm_assets.datasets.preparation import PreparedDataset
from tests.unit.datasets.conftest import questions, rows_of, write_rows

Prepared = Callable[..., PreparedDataset]


def declare(zone: Path, **entries: Any) -> None:
    (zone / "dataset_info.json").write_text(json.dumps(entries))


def test_named_columns_are_read_and_keep_their_names(zone: Path, tmp_path: Path, prepared: Prepared) -> None:
    write_rows(zone / "faq.jsonl", [{"question": "a", "answer": "b", "id": 1}])
    write_rows(zone / "other.jsonl", questions(2))
    declare(zone, faq={"file_name": "faq.jsonl", "columns": {"prompt": "question", "response": "answer"}})
    result = prepared(held_out_fraction=0)
    assert rows_of(tmp_path / "out/train.jsonl") == [{"question": "a", "answer": "b"}]
    assert result.statistics.unlisted_files == ("other.jsonl",)


def test_the_usual_columns_are_meant_where_none_are_named(zone: Path, prepared: Prepared) -> None:
    write_rows(zone / "rows.jsonl", [{"instruction": "a", "output": "b"}])
    declare(zone, rows={"file_name": "rows.jsonl"})
    assert prepared(held_out_fraction=0).rows == 1


def test_openai_messages_as_the_engines_own_readme_declares_them(
    zone: Path, tmp_path: Path, prepared: Prepared
) -> None:
    messages = [{"role": role, "content": role} for role in ("system", "user", "assistant")]
    write_rows(zone / "chat.jsonl", [{"messages": messages}])
    tags = {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    }
    columns = {"messages": "messages"}
    declare(
        zone, chat={"file_name": "chat.jsonl", "formatting": "sharegpt", "columns": columns, "tags": tags}
    )
    assert prepared(held_out_fraction=0).format == "sharegpt"
    assert rows_of(tmp_path / "out/train.jsonl") == [{"messages": messages}]


def test_a_folder_of_files_is_one_dataset(zone: Path, prepared: Prepared) -> None:
    (zone / "parts").mkdir()
    write_rows(zone / "parts" / "1.jsonl", questions(2))
    write_rows(zone / "parts" / "2.jsonl", questions(4)[2:])
    declare(zone, rows={"file_name": "parts"})
    assert [file.file for file in prepared().statistics.files] == ["parts/1.jsonl", "parts/2.jsonl"]


def test_a_preference_dataset_with_its_own_columns(zone: Path, tmp_path: Path, prepared: Prepared) -> None:
    write_rows(zone / "pairs.jsonl", [{"q": "a", "good": "b", "bad": "c"}])
    columns = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    declare(zone, pairs={"file_name": "pairs.jsonl", "ranking": True, "columns": columns})
    assert prepared("dpo", held_out_fraction=0).format == "preference"
    written = json.loads((tmp_path / "out/dataset_info.json").read_text())["train"]
    assert (written["ranking"], written["columns"]) == (True, columns)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"file_name": "rows.jsonl", "collumns": {}}, r"rows.collumns: unknown key; did you mean columns\?"),
        (
            {"file_name": "rows.jsonl", "columns": {"promt": "a"}},
            r"rows.columns.promt: unknown column; did you mean",
        ),
        (
            {"file_name": "rows.jsonl", "tags": {"rol_tag": "a"}},
            r"rows.tags.rol_tag: unknown tag; did you mean",
        ),
        ({"file_name": "rows.jsonl", "formatting": "chatml"}, "rows.formatting: Input should be 'alpaca'"),
        ({"file_name": "none.jsonl"}, "rows.file_name: none.jsonl: does not exist"),
        ({"file_name": "../other/rows.jsonl"}, "rows.file_name: .* leads out of the landing zone"),
        ({"file_name": "/etc/passwd"}, "rows.file_name: /etc/passwd: leads out of the landing zone"),
        ({"hf_hub_url": "org/name"}, "rows.hf_hub_url: is not taken; put the rows into a file"),
        ({"file_name": "rows.jsonl", "num_samples": 5}, "rows.num_samples: is not taken"),
        (
            {"file_name": "rows.jsonl", "columns": {"prompt": "a", "images": "b"}},
            "rows.columns.images: is not taken",
        ),
        ({"file_name": "rows.jsonl", "ranking": True}, "needs the columns chosen and rejected"),
        ({"file_name": "rows.jsonl", "formatting": "sharegpt", "columns": {}}, "needs the column messages"),
        (
            {
                "file_name": "rows.jsonl",
                "columns": {"prompt": "instruction", "query": "inptu", "response": "output"},
            },
            r"rows.jsonl: inptu: missing column \(dataset_info.json names 'inptu' as query of rows\)",
        ),
        ("rows.jsonl", "rows: Input should be a valid dictionary"),
    ],
)
def test_a_declaration_that_cannot_be_followed_is_refused(
    zone: Path, prepared: Prepared, entry: Any, message: str
) -> None:
    write_rows(zone / "rows.jsonl", questions(2))
    declare(zone, rows=entry)
    with pytest.raises(DatasetError, match=message):
        prepared()


def test_two_entries_for_one_file_are_refused(zone: Path, prepared: Prepared) -> None:
    write_rows(zone / "rows.jsonl", questions(2))
    declare(zone, one={"file_name": "rows.jsonl"}, two={"file_name": "rows.jsonl"})
    with pytest.raises(DatasetError, match=r"two: lists rows\.jsonl, as one does"):
        prepared()


def test_a_declaration_that_is_not_json_is_refused_with_its_line(zone: Path, prepared: Prepared) -> None:
    (zone / "dataset_info.json").write_text('{\n  "rows": \n}')
    with pytest.raises(DatasetError, match=r"dataset_info\.json:3: is not JSON"):
        prepared()
