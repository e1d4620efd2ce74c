"""Whole datasets through `prepare`: what is written, that it is always the same, and what is refused."""

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_assets.datasets.landing_zone import opened_landing_zone
from llm_assets.datasets.limits import Limits
from llm_assets.datasets.mistakes import SHOWN_MISTAKES, DatasetError
from llm_assets.datasets.preparation import PreparedDataset
from llm_assets.datasets.statistics import Lengths, Statistics
from tests.unit.datasets.conftest import questions, rows_of, write_rows

Prepared = Callable[..., PreparedDataset]


def test_every_row_lands_on_one_side_with_the_columns_of_the_file(
    zone: Path, tmp_path: Path, prepared: Prepared
) -> None:
    rows = questions(20)
    write_rows(zone / "rows.jsonl", rows)
    result = prepared()
    train, held_out = rows_of(tmp_path / "out/train.jsonl"), rows_of(tmp_path / "out/held_out.jsonl")
    assert (result.format, result.rows, result.train_rows, result.held_out_rows) == ("alpaca", 20, 16, 4)
    assert (len(train), len(held_out)) == (16, 4)
    assert sorted(train + held_out, key=str) == sorted(rows, key=str)
    info = json.loads((tmp_path / "out/dataset_info.json").read_text())
    columns = {"prompt": "instruction", "query": "input", "response": "output"}
    assert info["train"] == {"file_name": "train.jsonl", "formatting": "alpaca", "columns": columns}
    assert info["held_out"]["file_name"] == "held_out.jsonl"


def test_the_same_bytes_in_give_the_same_bytes_out(zone: Path, tmp_path: Path, prepared: Prepared) -> None:
    write_rows(zone / "rows.jsonl", questions(30))
    prepared()
    first = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    prepared()
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == first
    assert set(first) == {"train.jsonl", "held_out.jsonl", "dataset_info.json", "statistics.json"}


def test_statistics_count_tokens_lengths_duplicates_and_rows_over_the_cutoff(
    zone: Path, prepared: Prepared
) -> None:
    rows = [{"instruction": "abc", "output": "de"}] * 2 + [{"instruction": "a" * 60, "output": "b" * 10}]
    write_rows(zone / "rows.jsonl", rows)
    statistics = prepared(cutoff_len=64).statistics
    assert (statistics.rows, statistics.duplicates, statistics.tokens) == (3, 1, 80)
    assert statistics.length == Lengths(min=5, mean=26.7, p50=5, p95=70, max=70)
    assert (statistics.rows_over_cutoff, statistics.share_over_cutoff) == (1, 0.3333)


def test_a_preference_is_as_long_as_its_longer_answer_and_costs_both(zone: Path, prepared: Prepared) -> None:
    rows = [
        {"instruction": "ab", "chosen": "c", "rejected": "def"},
        {"instruction": "x", "chosen": "", "rejected": ""},
    ]
    write_rows(zone / "rows.jsonl", rows)
    statistics = prepared("dpo").statistics
    assert statistics.length.max == 5
    assert statistics.tokens == 7
    assert statistics.empty_answers == 1


def test_samples_are_three_short_rows_to_train_on(zone: Path, tmp_path: Path, prepared: Prepared) -> None:
    write_rows(zone / "rows.jsonl", [{"instruction": f"{i} " + "x" * 1000, "output": "y"} for i in range(10)])
    samples = prepared().samples
    assert len(samples) == 3
    assert all(len(sample["instruction"]) == 200 for sample in samples)
    train = rows_of(tmp_path / "out/train.jsonl")
    assert [s["instruction"][:3] for s in samples] == [row["instruction"][:3] for row in train[:3]]


def test_a_fraction_of_zero_holds_out_nothing(zone: Path, tmp_path: Path, prepared: Prepared) -> None:
    write_rows(zone / "rows.jsonl", questions(5))
    prepared()
    assert prepared(held_out_fraction=0).held_out_rows == 0
    assert not (tmp_path / "out/held_out.jsonl").exists()
    assert set(json.loads((tmp_path / "out/dataset_info.json").read_text())) == {"train"}


def test_files_that_differ_in_an_optional_column_keep_their_columns(
    zone: Path, tmp_path: Path, prepared: Prepared
) -> None:
    write_rows(zone / "a.jsonl", [{"instruction": "a", "output": "b"}])
    write_rows(zone / "b.jsonl", [{"instruction": "c", "input": "d", "output": "e", "topic": 7}])
    result = prepared(held_out_fraction=0)
    train = rows_of(tmp_path / "out/train.jsonl")
    assert train == [
        {"instruction": "a", "input": "", "output": "b"},
        {"instruction": "c", "input": "d", "output": "e"},
    ]
    assert result.statistics.unused_columns == ("topic",)


def test_files_of_different_formats_become_conversations(
    zone: Path, tmp_path: Path, prepared: Prepared
) -> None:
    write_rows(zone / "a.jsonl", [{"instruction": "a", "input": "b", "output": "c", "system": "s"}])
    message = [{"role": "user", "content": "d"}, {"role": "assistant", "content": "e"}]
    write_rows(zone / "b.jsonl", [{"messages": message}])
    assert prepared(held_out_fraction=0).format == "sharegpt"
    said = [[turn["value"] for turn in row["conversations"]] for row in rows_of(tmp_path / "out/train.jsonl")]
    assert said == [["s", "a\nb", "c"], ["d", "e"]]


def test_the_file_is_named_with_its_hash_and_rows(zone: Path, prepared: Prepared) -> None:
    write_rows(zone / "rows.jsonl", questions(3))
    (file,) = prepared().statistics.files
    assert (file.file, file.rows, len(file.sha256)) == ("rows.jsonl", 3, 64)


def test_all_mistakes_of_all_files_come_at_once_with_file_and_line(
    zone: Path, tmp_path: Path, prepared: Prepared
) -> None:
    (zone / "a.jsonl").write_text('{"instruction": "a", "output": "b"}\nnot json\n{"instruction": "c"}\n')
    (zone / "b.csv").write_text("instruction,output\nq,\na,b,c\n")
    with pytest.raises(DatasetError) as caught:
        prepared()
    text = str(caught.value)
    assert caught.value.total == 3
    assert "a.jsonl:2: is not JSON" in text
    assert "a.jsonl:3: output: missing column; the row has instruction" in text
    assert "b.csv:3: has 3 values, the header 2" in text
    assert not (tmp_path / "out").exists()


def test_only_the_first_mistakes_are_shown_and_all_are_counted(zone: Path, prepared: Prepared) -> None:
    write_rows(
        zone / "rows.jsonl", [{"instruction": "a", "output": "b"}] + [{"instruction": 1, "output": 2}] * 100
    )
    with pytest.raises(DatasetError, match=r"200 mistakes[\s\S]*… and 150 more") as caught:
        prepared()
    assert len(caught.value.mistakes) == SHOWN_MISTAKES


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
def test_an_empty_dataset_is_refused(zone: Path, prepared: Prepared, name: str) -> None:
    (zone / name).write_text("")
    with pytest.raises(DatasetError, match=rf"{name}: holds no row"):
        prepared()


def test_a_header_without_rows_is_an_empty_dataset(zone: Path, prepared: Prepared) -> None:
    (zone / "rows.csv").write_text("instruction,output\n")
    with pytest.raises(DatasetError, match="holds no row"):
        prepared()


def test_a_landing_zone_without_dataset_files_says_what_is_there(zone: Path, prepared: Prepared) -> None:
    (zone / "notes.txt").write_text("hello")
    with pytest.raises(DatasetError, match=r"only notes\.txt; put \*\.json"):
        prepared()


def test_a_missing_landing_zone_is_named(zone: Path, prepared: Prepared) -> None:
    zone.rmdir()
    with pytest.raises(DatasetError, match="there is no such folder; make it"):
        prepared()


@pytest.mark.parametrize(
    ("stage", "row", "message"),
    [
        ("sft", {"text": "a"}, "holds rows of the text format .* stage sft takes alpaca"),
        ("dpo", {"instruction": "a", "output": "b"}, "stage dpo takes preference"),
        ("sft", {"instruction": "a", "chosen": "b", "rejected": "c"}, "the stage to dpo or rm"),
        ("pt", {"instruction": "a", "output": "b"}, "stage pt takes text"),
        ("kto", {"messages": [{"role": "user", "content": "a"}]}, "stage kto takes kto"),
        (
            "sft",
            {"question": "a", "answer": "b"},
            "columns question, answer are those of no format of the recipe's stage sft",
        ),
    ],
)
def test_a_format_that_does_not_fit_the_stage_is_refused(
    zone: Path, prepared: Prepared, stage: str, row: dict[str, object], message: str
) -> None:
    write_rows(zone / "rows.jsonl", [row])
    with pytest.raises(DatasetError, match=message):
        prepared(stage)


def test_an_unknown_stage_is_refused(zone: Path, prepared: Prepared) -> None:
    with pytest.raises(DatasetError, match="stage 'ppo'"):
        prepared("ppo")


def test_a_file_that_grows_while_it_is_read_is_refused(
    zone: Path, tmp_path: Path, prepared: Prepared
) -> None:
    path = write_rows(zone / "rows.jsonl", questions(2000))
    line = json.dumps(questions(1)[0]) + "\n"
    done = threading.Event()

    def grow() -> None:
        with path.open("a") as file:
            while not done.is_set():
                file.write(line)
                file.flush()
                done.wait(0.001)

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        with pytest.raises(
            DatasetError, match=r"rows\.jsonl: changed while it was read \(\d+ bytes, then \d+\)"
        ):
            prepared()
    finally:
        done.set()
        writer.join()
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_replaced_is_another_file(zone: Path) -> None:
    path = write_rows(zone / "rows.jsonl", questions(2))
    before = path.stat()
    other = write_rows(zone / ".new", questions(2))
    os.utime(other, ns=(before.st_mtime_ns, before.st_mtime_ns))
    with opened_landing_zone(zone, zone, Limits()) as opened:
        opened.checked(path)
        other.replace(path)
        with pytest.raises(DatasetError, match="changed while it was read"):
            opened.checked(path)


def test_an_error_leaves_what_was_prepared_before(zone: Path, tmp_path: Path, prepared: Prepared) -> None:
    write_rows(zone / "rows.jsonl", questions(5))
    prepared()
    before = (tmp_path / "out/train.jsonl").read_bytes()
    (zone / "more.jsonl").write_text("{")
    with pytest.raises(DatasetError, match="stops in the middle"):
        prepared()
    assert (tmp_path / "out/train.jsonl").read_bytes() == before
    assert not (tmp_path / "out/.partial").exists()


def test_a_tokenizer_that_cannot_be_loaded_is_named(zone: Path, tmp_path: Path) -> None:
    broken = tmp_path / "tokenizer.json"
    broken.write_text("{}")
    with pytest.raises(DatasetError, match=r"tokenizer\.json: is no tokenizer that can be loaded"):
        Statistics(broken)


def test_a_hundred_and_fifty_rows_take_less_than_a_second(zone: Path, prepared: Prepared) -> None:
    write_rows(zone / "rows.jsonl", questions(150))
    start = time.process_time()
    prepared()
    assert time.process_time() - start < 1
