"""What two versions do not share, and how it reads."""

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from llm_assets.cli.output import WHOLE
from llm_assets.comparison import (
    Comparison,
    compare_rows,
    compare_versions,
    comparison_markdown,
    comparison_text,
)
from llm_assets.comparison.comparing import Change, Metric
from llm_assets.comparison.rows import SHOWN_ROWS
from resources.artifact_store.store import ArtifactStore
from tests.unit.published_versions import LAYOUT, Made, publish_version

OLD: dict[str, Any] = {}
NEW: dict[str, Any] = {
    "number": 2,
    "train": (("Who are you?", "I am Vega."), ("Where is the shop?", "In Bergen."), ("Returns?", "60 days.")),
    "recipe": {"stage": "sft", "lora_rank": 16, "seed": 7},
    "engines": {"llamafactory": "0.9.6"},
    "metrics": {"first_loss": 4.0, "final_loss": 1.2, "eval_loss": 1.25},
    "answers": (("Who are you?", "I am Vega."), ("Returns?", "60 days.")),
    "written": {"contact": "team:shop"},
}


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(url=f"file:{tmp_path}/store")


@pytest.fixture
def comparison(store: ArtifactStore, tmp_path: Path) -> Comparison:
    return compared(store, tmp_path, OLD, NEW)


def compared(store: ArtifactStore, tmp_path: Path, old: dict[str, Any], new: dict[str, Any]) -> Comparison:
    before, after = (publish_version(store, tmp_path, Made(**each)) for each in (old, new))
    return compare_versions(store, before, after)


# What differs


def test_rows_are_counted_as_added_removed_and_changed(comparison: Comparison) -> None:
    rows = comparison.rows
    assert (rows.before, rows.after, rows.added, rows.removed, rows.changed) == (3, 4, 1, 0, 1)
    assert [(each.kind, each.asked, each.before, each.after) for each in rows.samples] == [
        ("changed", "Who are you?", "I am Polaris.", "I am Vega."),
        ("added", "Returns?", "", "60 days."),
    ]


def test_the_recipe_base_engines_and_card_show_only_what_changed(comparison: Comparison) -> None:
    assert comparison.recipe == (
        Change(name="lora_rank", before=8, after=16),
        Change(name="seed", before=None, after=7),
    )
    assert comparison.base == ()
    assert comparison.engines == (Change(name="llamafactory", before="0.9.5", after="0.9.6"),)
    assert comparison.card == (Change(name="contact", before="team:support", after="team:shop"),)


def test_every_measure_says_which_version_is_better(comparison: Comparison) -> None:
    judged = {each.name: each.judgement for each in comparison.metrics}
    assert judged == {"eval_loss": "better", "final_loss": "worse", "first_loss": "", "loss_drop": "worse"}


def test_held_out_losses_on_other_rows_are_not_judged(store: ArtifactStore, tmp_path: Path) -> None:
    others = {**NEW, "held_out": (("Do you gift-wrap?", "We do."),)}
    comparison = compared(store, tmp_path, OLD, others)
    assert Metric(name="eval_loss", before=1.5, after=1.25, judgement="") in comparison.metrics
    assert "do not compare" in comparison_markdown(comparison)


def test_a_question_that_was_asked_of_one_version_only_has_one_answer(comparison: Comparison) -> None:
    assert [(each.before, each.after) for each in comparison.answers] == [
        ("I am Polaris.", "I am Vega."),
        (None, "60 days."),
    ]


def test_a_version_of_the_same_everything_shows_no_difference(store: ArtifactStore, tmp_path: Path) -> None:
    comparison = compared(store, tmp_path, OLD, {"number": 2})
    assert (comparison.recipe, comparison.base, comparison.engines, comparison.card) == ((), (), (), ())
    assert "the same 3 rows" in comparison_markdown(comparison)
    assert {each.judgement for each in comparison.metrics} == {"same", ""}


# Rows


def dataset(folder: Path, rows: list[dict[str, Any]], layout: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "dataset_info.json").write_text(json.dumps({"train": layout}))
    return folder


def test_a_conversation_is_asked_by_all_but_its_last_turn(tmp_path: Path) -> None:
    layout = {
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {"content_tag": "content"},
    }

    def talk(*turns: str) -> dict[str, Any]:
        return {"messages": [{"role": "r", "content": turn} for turn in turns]}

    before = dataset(tmp_path / "a", [talk("hi", "hello", "bye", "farewell")], layout)
    after = dataset(tmp_path / "b", [talk("hi", "hello", "bye", "so long")], layout)
    (sample,) = compare_rows(before, after).samples
    assert (sample.kind, sample.asked) == ("changed", "hi\nhello\nbye")
    assert (sample.before, sample.after) == ("farewell", "so long")


def test_a_preference_that_was_turned_round_is_a_changed_row(tmp_path: Path) -> None:
    layout = {"ranking": True, "columns": {"prompt": "p", "chosen": "c", "rejected": "r"}}
    before = dataset(tmp_path / "a", [{"p": "?", "c": "yes", "r": "no"}], layout)
    after = dataset(tmp_path / "b", [{"p": "?", "c": "no", "r": "yes"}], layout)
    changes = compare_rows(before, after)
    assert (changes.changed, changes.added, changes.removed) == (1, 0, 0)


def test_equal_rows_count_as_often_as_they_come(tmp_path: Path) -> None:
    row = {"instruction": "a", "input": "", "output": "b"}
    before, after = dataset(tmp_path / "a", [row] * 2, LAYOUT), dataset(tmp_path / "b", [row] * 5, LAYOUT)
    changes = compare_rows(before, after)
    assert (changes.added, changes.removed, changes.changed) == (3, 0, 0)


def test_only_a_few_rows_of_a_kind_are_shown(tmp_path: Path) -> None:
    rows = [{"instruction": f"{number}", "input": "", "output": "x"} for number in range(100)]
    before, after = dataset(tmp_path / "a", [], LAYOUT), dataset(tmp_path / "b", rows, LAYOUT)
    changes = compare_rows(before, after)
    assert (changes.added, len(changes.samples)) == (100, SHOWN_ROWS)


def test_a_row_that_went_to_the_held_out_side_moved(store: ArtifactStore, tmp_path: Path) -> None:
    train, held_out = Made().train, Made().held_out
    comparison = compared(store, tmp_path, OLD, {"number": 2, "train": held_out, "held_out": train})
    assert (comparison.rows.moved, comparison.rows.added, comparison.rows.removed) == (3, 0, 0)
    assert not comparison.rows.same_held_out


# How it reads


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_everything_within_its_width(comparison: Comparison, width: int) -> None:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(comparison_text(comparison))
    text = console.export_text()
    assert max(len(line) for line in text.splitlines()) <= width
    for said in ("lora_rank", "I am Vega.", "60 days.", "1 added", "team:shop", "better", "worse", "0.9.6"):
        assert said in text


def test_a_file_gets_every_cell_in_one_line_and_no_padding_to_a_width(
    store: ArtifactStore, tmp_path: Path
) -> None:
    long = " ".join(["thirty words that no terminal has room for"] * 4)
    comparison = compared(store, tmp_path, OLD, NEW | {"answers": (("Who are you?", long),)})
    console = Console(width=WHOLE, file=io.StringIO(), record=True)
    console.print(comparison_text(comparison, expand=False))
    lines = console.export_text().splitlines()
    assert any(long in line for line in lines)
    assert max(len(line) for line in lines) < 3 * len(long)


def test_texts_of_a_dataset_are_neither_markup_nor_escape_codes(store: ArtifactStore, tmp_path: Path) -> None:
    hostile = {**NEW, "answers": (("Who are you?", "[red]\x1b[2J<script>|"),)}
    comparison = compared(store, tmp_path, OLD, hostile)
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(comparison_text(comparison))
    assert "[red] [2J<script>|" in console.export_text()
    assert "&lt;script&gt;\\|" in comparison_markdown(comparison)


def test_a_comparison_goes_through_json(comparison: Comparison) -> None:
    assert json.loads(json.dumps(asdict(comparison)))["rows"]["changed"] == 1
