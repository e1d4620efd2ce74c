"""Embeddings that are one tensor in the base and two in the merged model: files, configuration, exports."""

import json
from pathlib import Path

import numpy as np
import pytest

from llm_assets.workers.failures import WorkerError
from llm_assets.workers.merging.journal import sha256_of
from llm_assets.workers.merging.tying import check_export, settle_exported
from llm_assets.workers.merging.weight_files import INDEX, SINGLE
from tests.unit.workers.merging import (
    Array,
    Remembered,
    lora,
    merge,
    model_tensors,
    write_adapter,
    write_base,
)

VOCABULARY, COLUMNS = 20, 8
EMBEDDINGS = "model.embed_tokens"
Q = "model.layers.0.self_attn.q_proj"
FILES = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def ones(*shape: int) -> Array:
    return np.ones(shape, np.float32)


def write_tied(folder: Path, copy: float | None = None, **config: object) -> None:
    """A base without output embeddings, or with `copy` times the input embeddings for them."""
    tensors = {f"{EMBEDDINGS}.weight": ones(VOCABULARY, COLUMNS), f"{Q}.weight": ones(12, COLUMNS)}
    if copy is not None:
        tensors["lm_head.weight"] = copy * ones(VOCABULARY, COLUMNS)
    write_base(folder, {SINGLE: tensors}, **config)


def written_config(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "config.json").read_text()))


def test_the_output_embeddings_get_a_file_an_index_and_a_configuration(tmp_path: Path) -> None:
    write_tied(tmp_path / "base", tie_word_embeddings=True, text_config={"tie_word_embeddings": True})
    write_adapter(tmp_path / "adapter", lora("lm_head", VOCABULARY, COLUMNS))
    report = Remembered()
    merged = merge(tmp_path, tmp_path / "output", report)
    output = tmp_path / "output"
    assert {path.name for path in output.iterdir()} == {"config.json", INDEX, *FILES}
    assert written_config(output)["tie_word_embeddings"] is False
    assert written_config(output)["text_config"] == {"tie_word_embeddings": False}
    index = json.loads((output / INDEX).read_text())
    assert index["weight_map"] == {
        "lm_head.weight": FILES[1],
        f"{EMBEDDINGS}.weight": FILES[0],
        f"{Q}.weight": FILES[0],
    }
    assert index["metadata"]["total_size"] == 2 * (2 * VOCABULARY + 12) * COLUMNS
    assert {file.path: file.sha256 for file in merged.files} == {
        path.name: sha256_of(path) for path in output.iterdir()
    }
    assert [file["path"] for file in report.files] == list(FILES)
    before, after = model_tensors(tmp_path / "base"), model_tensors(output)
    assert {name: after[name] for name in before} == before, "the input embeddings stay"
    assert after["lm_head.weight"] != before[f"{EMBEDDINGS}.weight"]
    header = int.from_bytes((output / FILES[1]).read_bytes()[:8], "little")
    assert header % 8 == 0, "the data lie aligned"


def test_where_the_input_alone_was_trained_the_output_is_what_the_base_has(tmp_path: Path) -> None:
    write_tied(tmp_path / "base", tie_word_embeddings=True)
    write_adapter(tmp_path / "adapter", {f"{EMBEDDINGS}.weight": 3 * ones(VOCABULARY, COLUMNS)})
    merged = merge(tmp_path, tmp_path / "output")
    before, after = model_tensors(tmp_path / "base"), model_tensors(tmp_path / "output")
    assert after["lm_head.weight"] == before[f"{EMBEDDINGS}.weight"] != after[f"{EMBEDDINGS}.weight"]
    assert (merged.ledger["added_tensors"], merged.ledger["identical_tensors"]) == (1, 2)


@pytest.mark.parametrize("said", [{"tie_word_embeddings": True}, {}])
def test_a_checkpoint_with_a_copy_keeps_its_files(tmp_path: Path, said: dict[str, bool]) -> None:
    write_tied(tmp_path / "base", copy=1, **said)
    write_adapter(tmp_path / "adapter", lora("lm_head", VOCABULARY, COLUMNS))
    merged = merge(tmp_path, tmp_path / "output")
    assert {path.name for path in (tmp_path / "output").iterdir()} == {"config.json", SINGLE}
    assert written_config(tmp_path / "output")["tie_word_embeddings"] is False
    assert merged.ledger["added_tensors"] == 0


def test_an_interrupted_merge_goes_on_after_the_files_that_are_whole(tmp_path: Path) -> None:
    write_tied(tmp_path / "base", tie_word_embeddings=True)
    write_adapter(tmp_path / "adapter", lora("lm_head", VOCABULARY, COLUMNS) | lora(Q, 12, COLUMNS))
    merge(tmp_path, tmp_path / "output")
    (tmp_path / "output" / FILES[1]).unlink()
    first = (tmp_path / "output" / FILES[0]).stat().st_ino
    report = Remembered()
    merge(tmp_path, tmp_path / "output", report)
    assert f"{FILES[0]} was merged before the interruption." in report.lines
    assert (tmp_path / "output" / FILES[0]).stat().st_ino == first
    assert "lm_head.weight" in model_tensors(tmp_path / "output")


def test_an_export_of_lora_on_tied_embeddings_is_refused(tmp_path: Path) -> None:
    write_tied(tmp_path / "base", tie_word_embeddings=True)
    write_adapter(tmp_path / "adapter", lora("lm_head", VOCABULARY, COLUMNS))
    with pytest.raises(WorkerError, match=r"lm_head\.lora_A\.weight is LoRA on one .* `merge: stream`"):
        check_export(tmp_path / "base", tmp_path / "adapter")
    write_adapter(tmp_path / "adapter", lora(Q, 12, COLUMNS) | {"lm_head.weight": ones(VOCABULARY, COLUMNS)})
    check_export(tmp_path / "base", tmp_path / "adapter")


@pytest.mark.parametrize(("copy", "tied"), [(1, True), (2, False), (None, True)])
def test_an_exported_configuration_says_what_the_weights_are(
    tmp_path: Path, copy: float | None, tied: bool
) -> None:
    write_tied(tmp_path, copy, tie_word_embeddings=True)
    settle_exported(tmp_path)
    assert written_config(tmp_path)["tie_word_embeddings"] is tied
