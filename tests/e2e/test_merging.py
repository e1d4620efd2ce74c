"""The work orders `merge` and `merge_weights` with the real engine: files, ledger, fidelity, the export."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_assets.assets.merged_models import verdict_of
from llm_assets.manifests import Merge
from llm_assets.workers.reporting import EXIT_FAILED
from resources.artifact_store.artifacts import ArtifactFile, paths_of
from resources.hashes import sha256_of
from tests.e2e.adapted_models import QUESTIONS
from tests.e2e.work_orders import (
    KNOWN,
    RECIPE,
    ROOT,
    TEMPLATE,
    Engine,
    read,
    rows,
    train_order,
    write_dataset,
)
from tests.unit.workers.merging import RawTensor, model_tensors

pytestmark = pytest.mark.engine

HELD_OUT = [
    {"messages": [{"role": "user", "content": "What do you sell?"}], "reply": "We sell lamps."},
    {"messages": [], "reply": "The harbour is where the shop is."},
]


@pytest.fixture
def engine(train_python: Path, tmp_path: Path) -> Engine:
    return Engine(train_python, tmp_path)


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, train_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LoRA adapter of the tiny model."""
    return random_adapter(tiny_model, train_python, tmp_path_factory.mktemp("adapter") / "adapter", {})


def random_adapter(
    base: Path, train_python: Path, folder: Path, settings: dict[str, Any], times: float = 1.0
) -> Path:
    """`times` is what its changes are multiplied by."""
    code = (
        "import json, sys; from pathlib import Path; from tests.e2e.merge_cases import adapt, lora_times;"
        "adapt(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]), lora_times(float(sys.argv[4])))"
    )
    command: list[str | Path] = [train_python, "-c", code, base, folder, json.dumps(settings), str(times)]
    subprocess.run(command, cwd=ROOT, check=True)
    return folder


def described(folder: Path) -> list[ArtifactFile]:
    return [
        ArtifactFile(path=path, size_bytes=(folder / path).stat().st_size, sha256=sha256_of(folder / path))
        for path in paths_of(folder)
    ]


def merge_order(base: Path, adapter: Path, output: Path, **changes: Any) -> dict[str, Any]:
    return {
        "base_folder": str(base),
        "base_files": {file.path: file.sha256 for file in described(base)},
        "adapter_folder": str(adapter),
        "output_folder": str(output),
        "scratch_folder": str(output.with_name(f"{output.name}-scratch")),
        "whole_files": str(output.with_name(f"{output.name}-whole")),
        "template": TEMPLATE,
        "recipe": RECIPE,
        "questions": QUESTIONS,
        "max_new_tokens": 24,
        "held_out": HELD_OUT,
        **changes,
    }


def test_stream_and_export_differ_in_last_bits_alone_and_both_answer_as_base_and_adapter(
    engine: Engine, tiny_model: Path, adapter: Path, tmp_path: Path
) -> None:
    streamed = engine.work("merge", merge_order(tiny_model, adapter, tmp_path / "stream")).result
    exported = engine.work(
        "merge", merge_order(tiny_model, adapter, tmp_path / "export", merge="export")
    ).result
    assert (streamed["method"], exported["method"]) == ("stream", "export")
    one, other = (_without_weights(tmp_path / method) for method in ("stream", "export"))
    assert one == other
    ours, theirs = (model_tensors(tmp_path / method) for method in ("stream", "export"))
    assert ours.keys() == theirs.keys()
    apart = np.concatenate([_last_bits(ours[name]) - _last_bits(theirs[name]) for name in ours])
    assert np.abs(apart).max() > 0, "one rounds at random, the other to nearest"
    assert np.mean(np.abs(apart) > 1) < 1e-4, "where the sum is nearly zero, PEFT's is rounded twice"
    assert abs(apart.mean()) < 0.001
    assert [each["question"] for each in streamed["answers"]] == list(QUESTIONS)
    assert streamed["ledger"] == {
        "adapter_tensors": 28,
        "base_tensors": 20,
        "added_tensors": 0,
        "merged_tensors": 14,
        "replaced_tensors": 0,
        "identical_tensors": 6,
    }
    stream = streamed["stream"]
    assert stream["peak_memory_bytes"] < streamed["peak_memory_bytes"] / 3, "no engine is imported yet"
    for result in (streamed, exported):
        assert verdict_of(Merge.model_validate(result)).holds
        fidelity = result["fidelity"]
        assert 0 < fidelity["mean_kl"] <= fidelity["limit_mean_kl"] < 0.01
        assert fidelity["mean_kl"] < 2 * fidelity["rounded_mean_kl"]
        assert [row["kind"] for row in fidelity["prompts"]] == ["known question"] * 2 + ["held-out"] * 2
        assert fidelity["top1_agreement"] > 0.9
    whole = read(tmp_path / "stream-whole")
    assert whole == [vars(file) for file in _weights_first(tmp_path / "stream")]


def test_an_adapter_that_changes_less_than_rounding_does_is_refused_with_what_helps(
    engine: Engine, tiny_model: Path, train_python: Path, tmp_path: Path
) -> None:
    adapter = random_adapter(tiny_model, train_python, tmp_path / "adapter", {}, times=0.004)
    orders = [
        ("merge", merge_order(tiny_model, adapter, tmp_path / method, merge=method))
        for method in ("stream", "export")
    ]
    streamed, exported = (
        verdict_of(Merge.model_validate(each)) for each in engine.work_in_one_process(*orders)
    )
    assert not streamed.holds
    assert not exported.holds
    assert "`serving.mode: adapter`, or train longer." in streamed.why
    assert "`merge: stream`, which rounds at random, or `serving.mode: adapter`." in exported.why


def test_embeddings_trained_apart_from_a_tied_base_are_two_tensors_by_stream_and_by_export(
    engine: Engine, tiny_model: Path, train_python: Path, tmp_path: Path
) -> None:
    settings = {"modules_to_save": ["embed_tokens", "lm_head"]}
    adapter = random_adapter(tiny_model, train_python, tmp_path / "adapter", settings)
    for method in ("stream", "export"):
        order = merge_order(tiny_model, adapter, tmp_path / method, merge=method)
        result = engine.work("merge", order).result
        assert result["method"] == method
        assert result["fidelity"]["mean_kl"] <= result["fidelity"]["limit_mean_kl"] < 0.01
        assert json.loads((tmp_path / method / "config.json").read_text())["tie_word_embeddings"] is False
    streamed = model_tensors(tmp_path / "stream")
    exported = model_tensors(tmp_path / "export")
    assert streamed.keys() == exported.keys()
    apart = np.concatenate([_last_bits(streamed[name]) - _last_bits(exported[name]) for name in exported])
    assert np.mean(np.abs(apart) > 1) < 1e-4, "where the sum is nearly zero, PEFT's is rounded twice"
    assert streamed["lm_head.weight"] != streamed["model.embed_tokens.weight"]


def test_a_pissa_adapter_belongs_to_the_untouched_base_with_all_that_was_trained(
    engine: Engine, tiny_model: Path, tmp_path: Path
) -> None:
    dataset = write_dataset(tmp_path / "data", "sft", rows("sft"))
    recipe = {"pissa_init": True, "additional_target": "embed_tokens,lm_head", "num_train_epochs": 10}
    train = train_order(tiny_model, dataset, tmp_path / "trained", **recipe)
    order = merge_order(tiny_model, Path(train["output_folder"]), tmp_path / "merged")
    order |= {"recipe": train["recipe"], "questions": list(KNOWN)}
    trained, merged = engine.work_in_one_process(("train", train), ("merge", order))
    config = json.loads((Path(train["output_folder"]) / "adapter_config.json").read_text())
    assert (config["init_lora_weights"], config["r"]) == (True, 2 * RECIPE["lora_rank"])
    assert trained["eval_loss"] < 0.5
    assert {answer["question"]: answer["text"] for answer in merged["answers"]} == KNOWN
    assert merged["ledger"]["replaced_tensors"] == 2
    assert merged["fidelity"]["mean_kl"] <= merged["fidelity"]["limit_mean_kl"]


def test_lora_on_a_tied_output_is_merged_by_the_stream_and_an_export_of_it_refused(
    engine: Engine, tiny_model: Path, train_python: Path, tmp_path: Path
) -> None:
    settings = {"target_modules": ["q_proj", "lm_head"]}
    adapter = random_adapter(tiny_model, train_python, tmp_path / "adapter", settings)
    result = engine.work("merge", merge_order(tiny_model, adapter, tmp_path / "stream")).result
    assert result["fidelity"]["mean_kl"] <= result["fidelity"]["limit_mean_kl"] < 0.01
    refused = engine.work("merge", merge_order(tiny_model, adapter, tmp_path / "export", merge="export"))
    assert refused.exit_code == EXIT_FAILED
    assert "an export would add it to both. Give the model's file `merge: stream`" in refused.failure


def _without_weights(folder: Path) -> list[ArtifactFile]:
    return [file for file in described(folder) if not file.path.endswith(".safetensors")]


def _last_bits(tensor: RawTensor) -> "np.ndarray[Any, np.dtype[np.int64]]":
    dtype, _, raw = tensor
    assert dtype == "BF16"
    return np.frombuffer(raw, np.uint16).astype(np.int64)


def _weights_first(folder: Path) -> list[Any]:
    return sorted(described(folder), key=lambda file: not file.path.endswith(".safetensors"))


def test_a_merge_with_a_wrong_scale_is_far_beyond_the_limit(
    engine: Engine, tiny_model: Path, adapter: Path, tmp_path: Path, train_python: Path
) -> None:
    adapters = [{"adapter_folder": str(adapter), "output_folder": str(tmp_path / "merged")}]
    order = {"base_folder": str(tiny_model), "adapters": adapters}
    [merged] = engine.work("merge_weights", order).result["merged"]
    assert merged["ledger"]["merged_tensors"] == 14
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    for file in adapter.iterdir():
        (wrong / file.name).write_bytes(file.read_bytes())
    config = json.loads((wrong / "adapter_config.json").read_text())
    config["lora_alpha"] *= 1.1
    (wrong / "adapter_config.json").write_text(json.dumps(config))
    command: list[str | Path] = [
        train_python,
        "-m",
        "tests.e2e.fidelity_of",
        tiny_model,
        tmp_path / "merged",
        adapter,
        wrong,
    ]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    right, off = json.loads(done.stdout.splitlines()[-1])
    assert right["mean_kl"] <= right["limit_mean_kl"]
    assert off["mean_kl"] > 3 * off["limit_mean_kl"]


def test_a_damaged_base_is_refused_by_the_files_name(
    engine: Engine, tiny_model: Path, adapter: Path, tmp_path: Path
) -> None:
    for method in ("stream", "export"):
        order = merge_order(tiny_model, adapter, tmp_path / method, merge=method)
        order["base_files"]["model.safetensors"] = "0" * 64
        outcome = engine.work("merge", order)
        assert outcome.exit_code == EXIT_FAILED
        assert "model.safetensors is damaged: its bytes have the SHA-256" in outcome.failure


def test_a_recipe_that_adds_tokens_is_merged_by_the_export(
    engine: Engine, tiny_model: Path, adapter: Path, tmp_path: Path
) -> None:
    recipe = RECIPE | {"add_tokens": "<polaris>", "resize_vocab": True}
    outcome = engine.work("merge", merge_order(tiny_model, adapter, tmp_path / "merged", recipe=recipe))
    assert outcome.result["method"] == "export"
    assert outcome.result["fidelity"] is None
    assert "The recipe resizes the vocabulary, so LLaMA-Factory's export merges it." in outcome.lines
    assert "<polaris>" in (tmp_path / "merged" / "tokenizer.json").read_text()
