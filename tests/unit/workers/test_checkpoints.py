"""Which checkpoint a training goes on from."""

from pathlib import Path

import pytest

from llm_assets.workers import checkpoints

TRAINING = "recipe and rows"


def save(folder: Path, step: int, *, sealed: bool = True, training: str = TRAINING) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "adapter_model.safetensors").write_bytes(b"weights" * step)
    (checkpoint / checkpoints.OPTIMIZER).write_bytes(b"moments" * step)
    if sealed:
        checkpoints.seal(checkpoint, step=step, train_seconds=step * 2.0, training=training)
    return checkpoint


def test_the_newest_whole_checkpoint_is_taken(tmp_path: Path) -> None:
    save(tmp_path, 9)
    newest = save(tmp_path, 10)
    assert checkpoints.last_whole(tmp_path, TRAINING) == checkpoints.Checkpoint(
        folder=newest, step=10, train_seconds=20.0
    )


def test_a_new_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoints.last_whole(tmp_path / "new", TRAINING) is None


@pytest.mark.parametrize("name", ["adapter_model.safetensors", checkpoints.OPTIMIZER])
def test_a_checkpoint_with_a_truncated_or_missing_file_is_dropped(tmp_path: Path, name: str) -> None:
    good, short, without = save(tmp_path, 1), save(tmp_path, 2), save(tmp_path, 3)
    (short / name).write_bytes(b"w")
    (without / name).unlink()
    found = checkpoints.last_whole(tmp_path, TRAINING)
    assert found is not None
    assert found.folder == good
    assert list(tmp_path.iterdir()) == [good]


def test_a_checkpoint_that_was_still_being_written_is_dropped(tmp_path: Path) -> None:
    torn = save(tmp_path, 5, sealed=False)
    (torn / f"{checkpoints.WHOLE}.tmp").write_text('{"step": 5, "tra')
    assert checkpoints.last_whole(tmp_path, TRAINING) is None
    assert not torn.exists()


def test_a_checkpoint_of_another_training_is_dropped(tmp_path: Path) -> None:
    save(tmp_path, 5, training="another recipe")
    assert checkpoints.last_whole(tmp_path, TRAINING) is None


def test_what_a_stopped_training_left_beside_its_checkpoints_is_removed(tmp_path: Path) -> None:
    good = save(tmp_path, 5)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"half")
    (tmp_path / "cache").mkdir()
    checkpoints.last_whole(tmp_path, TRAINING)
    assert list(tmp_path.iterdir()) == [good]


def test_a_changed_row_recipe_or_template_is_another_training(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"instruction": "a"}\n')
    (tmp_path / "statistics.json").write_text("{}")
    first = checkpoints.identity({"lora_rank": 8}, "smollm2", tmp_path)
    assert checkpoints.identity({"lora_rank": 8}, "smollm2", tmp_path) == first
    assert checkpoints.identity({"lora_rank": 9}, "smollm2", tmp_path) != first
    assert checkpoints.identity({"lora_rank": 8}, "llama3", tmp_path) != first
    (tmp_path / "train.jsonl").write_text('{"instruction": "b"}\n')
    assert checkpoints.identity({"lora_rank": 8}, "smollm2", tmp_path) != first
