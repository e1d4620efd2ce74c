"""Files as people have them: of other tools, of LLaMA-Factory's users, and what bug reports were about.

Each is either taken with every row, or refused in one line a file (or a row) that says how to go on. The rows
are our own, made as few as show the case.
"""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_assets.datasets.mistakes import DatasetError
from llm_assets.datasets.preparation import PreparedDataset
from tests.unit.datasets.conftest import questions, rows_of, write_rows

Prepared = Callable[..., PreparedDataset]
Row = dict[str, Any]
SHELF, CRATES = "What does shelf 0 hold?", "Shelf 0 holds 0 crates."
QUESTION, ANSWER = {"role": "user", "content": SHELF}, {"role": "assistant", "content": CRATES}


def said(result: PreparedDataset) -> list[str]:
    return [str(remark) for remark in result.remarks]


def refused(prepared: Prepared, stage: str = "sft", **changes: Any) -> DatasetError:
    with pytest.raises(DatasetError) as caught:
        prepared(stage, **changes)
    return caught.value


def test_a_csv_of_pandas_with_its_index(zone: Path, tmp_path: Path, prepared: Prepared) -> None:
    (zone / "faq.csv").write_text(f",instruction,output\n0,{SHELF},{CRATES}\n1,a,b\n")
    result = prepared(held_out_fraction=0)
    assert rows_of(tmp_path / "out/train.jsonl")[0] == {"instruction": SHELF, "output": CRATES}
    assert said(result) == ["faq.csv: the column (column 1, without a name) is not used"]


def test_a_csv_of_a_spreadsheet_with_trailing_commas(zone: Path, tmp_path: Path, prepared: Prepared) -> None:
    (zone / "faq.csv").write_text(f"instruction,output,,\n{SHELF},{CRATES},,\na,b,,\n")
    result = prepared(held_out_fraction=0)
    assert rows_of(tmp_path / "out/train.jsonl")[1] == {"instruction": "a", "output": "b"}
    assert result.statistics.unused_columns == tuple([f"(column {n}, without a name)" for n in (3, 4)])
    assert len(said(result)) == 2


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("key", ["rows", "data"])
@pytest.mark.parametrize("others", [{}, {"version": "1.0", "info": {"by": ["kim"]}}])
def test_rows_in_the_only_list_of_an_object(
    zone: Path, tmp_path: Path, prepared: Prepared, indent: int | None, key: str, others: Row
) -> None:
    for place, name in enumerate(("first.json", "last.jsonl")):
        items = [*others.items(), (key, questions(2 + place)[place:])]
        (zone / name).write_text(json.dumps(dict(items[:: 1 - 2 * place]), indent=indent))
    assert prepared(held_out_fraction=0).remarks == ()
    assert rows_of(tmp_path / "out/train.jsonl") == [*questions(2), *questions(3)[1:]]


@pytest.mark.parametrize("indent", [None, 1])
def test_a_single_row_with_a_list_of_its_own_is_a_row(
    zone: Path, tmp_path: Path, prepared: Prepared, indent: int | None
) -> None:
    row = {"instruction": "a", "output": "b", "data": [{"instruction": "c", "output": "d"}]}
    (zone / "a.json").write_text(json.dumps(row, indent=indent))
    assert said(prepared(held_out_fraction=0)) == ["a.json: the column data is not used"]
    assert rows_of(tmp_path / "out/train.jsonl") == [{"instruction": "a", "output": "b"}]


def test_a_broken_row_in_a_wrapped_list_has_its_line(zone: Path, prepared: Prepared) -> None:
    rows = [*questions(2), {"instruction": "a", "output": 1, "input": ""}]
    (zone / "a.json").write_text(json.dumps({"version": 1, "data": rows}, indent=1))
    assert re.search(r"a\.json:14: output: is a number", str(refused(prepared)))


@pytest.mark.parametrize(
    "document", [{"examples": questions(2)}, {"rows": questions(2), "features": [{"name": "a"}]}]
)
@pytest.mark.parametrize("indent", [None, 2])
def test_rows_under_any_other_key_are_one_mistake(
    zone: Path, prepared: Prepared, document: Row, indent: int | None
) -> None:
    (zone / "a.json").write_text(json.dumps(document, indent=indent))
    error = refused(prepared)
    assert error.total == 1
    assert "is one object" in str(error)
    assert f"its rows seem to lie under '{next(iter(document))}'" in str(error)


@pytest.mark.parametrize("between", ["\n", "", "\n\n  "])
def test_pretty_objects_one_after_the_other(
    zone: Path, tmp_path: Path, prepared: Prepared, between: str
) -> None:
    (zone / "a.json").write_text(between.join(json.dumps(row, indent=2) for row in questions(3)))
    prepared(held_out_fraction=0)
    assert rows_of(tmp_path / "out/train.jsonl") == questions(3)


def test_a_broken_pretty_object_is_one_mistake(zone: Path, prepared: Prepared) -> None:
    text = "\n".join(json.dumps(row, indent=2) for row in questions(30))
    (zone / "a.json").write_text(text.replace('"input": ""', '"input": "" oh', 1))
    error = refused(prepared)
    assert error.total == 1
    assert "a.json:3: is not JSON" in str(error)
    (zone / "a.json").write_text(text[:-1])
    assert "the last object has no end" in str(refused(prepared))


def test_a_text_file_is_a_row_a_line_for_pt_and_not_read_else(
    zone: Path, tmp_path: Path, prepared: Prepared
) -> None:
    (zone / "book.txt").write_text("\ufeffOne line.\n\nAnother one.\r\n", encoding="utf-8")
    prepared("pt", held_out_fraction=0)
    assert rows_of(tmp_path / "out/train.jsonl") == [{"text": "One line."}, {"text": "Another one."}]
    write_rows(zone / "rows.jsonl", questions(3))
    assert said(prepared()) == ["book.txt: is not read: text files are for stage pt, this one is sft"]


def test_a_folder_of_the_hub_is_taken_without_its_test_split(zone: Path, prepared: Prepared) -> None:
    import pyarrow
    from pyarrow import parquet

    (zone / "data").mkdir()
    (zone / "README.md").write_text("---\nlicense: mit\n---\n")
    (zone / ".gitattributes").write_text("*.parquet filter=lfs")
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        rows = [{"instruction": f"{name} {i}", "output": "b"} for i in range(3)]
        parquet.write_table(pyarrow.Table.from_pylist(rows), zone / "data" / f"{name}.parquet")
    result = prepared()
    assert (result.rows, [file.file[:8] for file in result.statistics.files]) == (6, ["data/tra"] * 2)
    assert said(result) == [
        "data/test-00000-of-00001.parquet: is not learned from: by its name it is no part of the split train"
    ]


def test_what_lies_beside_the_files_that_are_read_is_said(zone: Path, prepared: Prepared) -> None:
    write_rows(zone / "test.jsonl", questions(3))
    (zone / "more" / "deeper").mkdir(parents=True)
    write_rows(zone / "more" / "deeper" / "rows.jsonl", questions(9))
    (zone / "logo.png").write_bytes(b"png")
    for document in ("README", "LICENSE.txt", "notes.md", ".DS_Store"):
        (zone / document).write_text("of no interest")
    folder = "the files in this folder are not read; move them up, or name it in dataset_info.json"
    held_out = "is learned from like any other file; rows are held out by the platform itself"
    assert said(prepared()) == [
        "logo.png: is not read: it is no file of a dataset",
        f"more: {folder}",
        f"test.jsonl: {held_out}",
    ]


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("a.jsonl.gz", "is packed; unpack it"),
        ("a.zip", "is packed; unpack it"),
        ("faq.tsv", r"pandas.read_csv('faq.tsv', sep='\t').to_csv('faq.csv', index=False)"),
        ("a.arrow", "datasets.Dataset.from_file('a.arrow').to_parquet('a.parquet')"),
        ("a.feather", "pandas.read_feather('a.feather').to_csv('a.csv', index=False)"),
        ("Contract.DOCX", "is a document; put its text into rows"),
        ("manual.pdf", "is a document; put its text into rows"),
        ("faq.xlsx", "is a spreadsheet; save each of its sheets as CSV"),
        ("rows.pkl", "can run code when it is loaded"),
        ("rows.sqlite", "is a database; export its table"),
        ("rows.ndjson", "call it rows.jsonl"),
    ],
)
@pytest.mark.parametrize("beside", [True, False])
def test_data_in_another_form_is_one_mistake_with_the_way_to_convert_it(
    zone: Path, prepared: Prepared, name: str, remedy: str, beside: bool
) -> None:
    (zone / name).write_bytes(gzip.compress(b'{"instruction": "a", "output": "b"}\n'))
    if beside:
        write_rows(zone / "rows.jsonl", questions(3))
    error = refused(prepared)
    assert error.total == 1
    assert f"{name}: " in str(error)
    assert remedy in str(error)


def test_data_in_another_form_in_the_folder_of_a_hub_is_a_mistake(zone: Path, prepared: Prepared) -> None:
    (zone / "data").mkdir()
    (zone / "data" / "train.arrow").write_bytes(b"ARROW1")
    assert "data/train.arrow: is Arrow; write Parquet" in str(refused(prepared))
    write_rows(zone / "data" / "train.jsonl", questions(3))
    error = refused(prepared)
    assert error.total == 1
    assert "data/train.arrow: is Arrow" in str(error)


def test_a_dataset_saved_to_disk_says_how_to_write_parquet(zone: Path, prepared: Prepared) -> None:
    (zone / "dataset_info.json").write_text(json.dumps({"citation": "", "features": {}, "splits": {}}))
    (zone / "data-00000-of-00001.arrow").write_bytes(b"ARROW1")
    assert "load_from_disk(folder).to_parquet" in str(refused(prepared))


FOREIGN: list[tuple[str, Row]] = [
    ("sft", {"question": SHELF, "answer": CRATES}),
    ("sft", {"prompt": SHELF, "completion": CRATES}),
    ("sft", {"Instruction": SHELF, "context": "c", "Response": CRATES}),
    ("sft", {"user": SHELF, "assistant": CRATES, "system_prompt": "s"}),
    ("sft", {"instruction": SHELF, "response": CRATES}),
    ("sft", {"dialog": [QUESTION, ANSWER]}),
    ("sft", {"chat": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}),
    ("dpo", {"prompt": SHELF, "chosen": CRATES, "rejected": "No."}),
    ("dpo", {"question": SHELF, "preferred": CRATES, "dispreferred": "No."}),
    ("rm", {"input": SHELF, "good": CRATES, "bad": "No."}),
    ("kto", {"prompt": SHELF, "completion": CRATES, "label": True}),
    ("kto", {"instruction": SHELF, "output": CRATES, "liked": False}),
    ("kto", {"messages": [QUESTION, ANSWER], "label": True}),
    ("pt", {"content": "A text."}),
    ("pt", {"url": "u", "raw_content": "A text."}),
]


@pytest.mark.parametrize(("stage", "row"), FOREIGN, ids=lambda value: str(value)[:50])
def test_the_hint_for_foreign_columns_is_of_the_stage_and_works_as_it_stands(
    zone: Path, prepared: Prepared, stage: str, row: Row
) -> None:
    write_rows(zone / "rows.jsonl", [row, {**row, "id": 2}])
    error = refused(prepared, stage)
    assert error.total == 1
    entry = str(error)[str(error).index('{"my_data"') :].splitlines()[0]
    (zone / "dataset_info.json").write_text(entry)
    result = prepared(stage, held_out_fraction=0)
    assert result.rows == 2
    used = {column for column in row if column not in ("id", "url")}
    assert not used & set(result.statistics.unused_columns)


def test_columns_that_nobody_knows_are_to_be_filled_in(zone: Path, prepared: Prepared) -> None:
    write_rows(zone / "rows.jsonl", [{"a": "1", "b": "2"}])
    assert '"prompt": "<your column of what is asked>"' in str(refused(prepared))
    assert '"kto_tag": "<your column of true for a good answer>"' in str(refused(prepared, "kto"))
    assert '"prompt": "<your column of the text>"' in str(refused(prepared, "pt"))


def test_preferences_of_whole_conversations_as_trl_has_them(zone: Path, prepared: Prepared) -> None:
    write_rows(zone / "rows.jsonl", [{"chosen": [QUESTION, ANSWER], "rejected": [QUESTION, ANSWER]}])
    error = refused(prepared, "dpo")
    assert error.total == 1
    assert "hold whole conversations; give what is asked as `messages`" in str(error)


LLAMA_FACTORYS = {
    "identity": {"file_name": "identity.json"},
    "alpaca_en_demo": {"file_name": "alpaca_en_demo.json"},
    "mllm_demo": {"file_name": "mllm_demo.json", "formatting": "sharegpt", "columns": {"images": "images"}},
    "alpaca_en": {"hf_hub_url": "llamafactory/alpaca_en", "ms_hub_url": "llamafactory/alpaca_en"},
    "belle": {"script_url": "belle_multiturn", "formatting": "sharegpt"},
    "c4_demo": {"file_name": "c4_demo.jsonl", "columns": {"prompt": "text"}},
    "wiki_demo": {"file_name": "wiki_demo.txt", "columns": {"prompt": "text"}},
    "pile": {"hf_hub_url": "monology/pile", "columns": {"prompt": "text"}},
    "stem": {"hf_hub_url": "a/b", "subset": "x", "folder": "c", "num_samples": 5},
}


def test_a_dataset_info_copied_whole_is_no_mistake(zone: Path, tmp_path: Path, prepared: Prepared) -> None:
    row = {"instruction": "Who are you?", "input": "", "output": "I am {{name}}, made by {{ author }}."}
    (zone / "identity.json").write_text(json.dumps([row, row]))
    (zone / "dataset_info.json").write_text(json.dumps(LLAMA_FACTORYS))
    result = prepared(held_out_fraction=0)
    assert result.rows == 2
    absent = "alpaca_en_demo, mllm_demo, alpaca_en, …"
    asis = "is learned as it stands; fill it in if that is not meant (2 rows)"
    assert said(result) == [
        f"dataset_info.json: 8 of its entries are not read, because their files are not here: {absent}",
        f"identity.json:1: the placeholder {{{{name}}}} {asis}",
        f"identity.json:1: the placeholder {{{{author}}}} {asis}",
    ]


def test_a_dataset_info_copied_whole_without_one_of_its_files(zone: Path, prepared: Prepared) -> None:
    (zone / "dataset_info.json").write_text(json.dumps(LLAMA_FACTORYS))
    assert "none of the files that its 9 entries name is here" in str(refused(prepared))
    write_rows(zone / "mine.jsonl", questions(2))
    error = refused(prepared)
    assert error.total == 2
    assert 'does not list mine.jsonl; add {"my_data": {"file_name": "mine.jsonl"}}' in str(error)
