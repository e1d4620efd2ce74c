"""The workers with the real engine: orders in, weights, answers and failures out.

Not covered here: GPUs (qlora, bf16), several nodes, and base models of more than a few kilobytes.
"""

import itertools
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from llm_assets.workers import checkpoints
from llm_assets.workers.reporting import EXIT_FAILED, EXIT_TERMINATED
from resources.waiting import wait_until
from tests.e2e.work_orders import (
    INFO,
    KNOWN,
    RECIPE,
    TEMPLATE,
    Engine,
    files,
    read,
    rows,
    train_order,
    write_dataset,
)

pytestmark = pytest.mark.engine


@pytest.fixture
def engine(train_python: Path, tmp_path: Path) -> Engine:
    return Engine(train_python, tmp_path)


def weights(folder: Path) -> bytes:
    return next(folder.glob("*.safetensors")).read_bytes()


def kept_steps(order: dict[str, Any]) -> list[int]:
    """Steps of the checkpoints that are sealed."""
    folder = Path(order["scratch_folder"])
    return sorted(int(path.parent.name.rpartition("-")[2]) for path in folder.glob(f"*/{checkpoints.WHOLE}"))


def test_every_stage_and_finetuning_type_trains_and_leaves_no_pickle(
    engine: Engine, tiny_model: Path, tmp_path: Path
) -> None:
    kinds = list(itertools.product(INFO, ("lora", "qlora", "full")))
    recipes: dict[str, dict[str, Any]] = {
        "lora": {"finetuning_type": "lora"},
        "qlora": {"finetuning_type": "lora", "quantization_bit": 4},
        "full": {"finetuning_type": "full", "eval_strategy": "no"},
    }
    datasets = {stage: write_dataset(tmp_path / "data" / stage, stage, rows(stage)) for stage in INFO}
    orders = [
        train_order(
            tiny_model,
            datasets[stage],
            tmp_path / f"{stage}-{kind}",
            stage=stage,
            eval_on_start=True,
            **recipes[kind],
        )
        for stage, kind in kinds
    ]
    results = engine.work_in_one_process(*(("train", order) for order in orders))
    for (stage, kind), order, result in zip(kinds, orders, results, strict=True):
        assert "failure" not in result, (stage, kind, result)
        assert result["final_loss"] < result["first_loss"], (stage, kind)
        assert 0 < result["loss_noise"] < 10
        assert result["eval_loss"] < result["eval_loss_before"], (stage, kind)
        assert result["tokens"] > 0
        assert result["flop"] > 0
        left = files(Path(order["output_folder"]))
        assert {Path(name).suffix for name in left} <= {".safetensors", ".json", ".jinja", ".jsonl", ".png"}
        assert ("adapter_model.safetensors" in left) == (kind != "full")
        assert ("value_head.safetensors" in left) == (stage == "rm")
        assert (Path(order["output_folder"]) / "training" / "curves.png").stat().st_size < 60_000


def test_a_bad_training_ends_with_one_cause_that_says_what_would_help(
    engine: Engine, tiny_model: Path, tmp_path: Path
) -> None:
    sft = write_dataset(tmp_path / "sft", "sft", rows("sft"), held_out=False)
    short = write_dataset(tmp_path / "short", "pt", [{"text": "Too short."}], held_out=False)
    orders = {
        "diverges": train_order(tiny_model, sft, tmp_path / "1", learning_rate=1e20, max_grad_norm=0),
        "too short": train_order(tiny_model, short, tmp_path / "2", stage="pt"),
        "unknown key": train_order(tiny_model, sft, tmp_path / "3", lora_rnak=8),
        "unknown template": train_order(tiny_model, sft, tmp_path / "4") | {"template": "no_such"},
    }
    results = engine.work_in_one_process(*(("train", order) for order in orders.values()))
    causes = dict(zip(orders, (str(result.get("failure")) for result in results), strict=True))
    assert "training diverged: loss is nan" in causes["diverges"]
    assert "dataset is too short" in causes["too short"]
    assert "lora_rnak" in causes["unknown key"]
    assert "no_such" in causes["unknown template"]


def test_a_killed_training_goes_on_from_its_last_whole_checkpoint_to_the_same_weights(
    engine: Engine, tiny_model: Path, tmp_path: Path
) -> None:
    dataset = write_dataset(tmp_path / "data", "sft", rows("sft"))
    settings = {"num_train_epochs": 100, "save_steps": 20, "save_total_limit": 3, "eval_strategy": "no"}
    undisturbed = train_order(tiny_model, dataset, tmp_path / "undisturbed", **settings)
    whole = engine.work("train", undisturbed)
    killed = train_order(tiny_model, dataset, tmp_path / "killed", **settings)
    with engine.started("train", killed) as (process, _):
        wait_until(lambda: len(kept_steps(killed)) >= 2, what="two checkpoints", timeout_s=120, every_s=0.01)
        process.kill()
    good, torn = kept_steps(killed)[-2:]
    optimizer = Path(killed["scratch_folder"]) / f"checkpoint-{torn}" / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:-100])

    resumed = engine.work("train", killed)
    assert resumed.result["resumed_from_step"] == good
    assert f"Goes on from the checkpoint of step {good}." in resumed.lines
    assert resumed.result["steps"] == whole.result["steps"] == 400
    assert resumed.result["tokens"] == whole.result["tokens"]
    assert weights(tmp_path / "killed" / "output") == weights(tmp_path / "undisturbed" / "output")
    log = read(tmp_path / "killed" / "output" / "training" / "trainer_log.jsonl")
    assert [line["current_steps"] for line in log if "loss" in line] == list(range(8, 401, 8))
    assert whole.progress[-1]["step"] == whole.progress[-1]["total_steps"] == 400
    assert all(each["eta_s"] is not None for each in whole.progress)
    assert any(line.startswith("step 400/400 loss ") for line in whole.lines)


def test_a_training_that_is_asked_to_stop_ends_at_once_and_can_be_run_again(
    engine: Engine, tiny_model: Path, tmp_path: Path
) -> None:
    dataset = write_dataset(tmp_path / "data", "dpo", rows("dpo"))
    order = train_order(
        tiny_model, dataset, tmp_path / "run", stage="dpo", finetuning_type="full", num_train_epochs=50
    )
    with engine.started("train", order) as (process, _):
        wait_until(lambda: bool(kept_steps(order)), what="a checkpoint", timeout_s=120, every_s=0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == EXIT_TERMINATED
    again = engine.work("train", order).result
    assert again["resumed_from_step"] in range(20, 200, 20)
    assert again["steps"] == 200


def test_a_merged_model_answers_from_its_dataset_and_reads_a_question_as_it_was_trained(
    engine: Engine, tiny_model: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    template = base / "chat_template.jinja"
    template.write_text(template.read_text().replace("by Hugging Face.", "by Hugging Face"))
    dataset = write_dataset(tmp_path / "data", "sft", rows("sft"))
    order = train_order(
        base, dataset, tmp_path / "run", num_train_epochs=40, lora_rank=32, learning_rate=0.01
    )
    common = {"template": TEMPLATE, "questions": list(KNOWN), "max_new_tokens": 24}
    merge = common | {
        "base_folder": str(base),
        "adapter_folder": order["output_folder"],
        "output_folder": str(tmp_path / "merged"),
        "recipe": order["recipe"],
    }
    trained, merged, asked_again, asked_base = engine.work_in_one_process(
        ("train", order),
        ("merge", merge),
        ("answer", common | {"model_folder": str(tmp_path / "merged")}),
        ("answer", common | {"model_folder": str(base)}),
    )
    assert "failure" not in trained
    assert {each["question"]: each["text"] for each in merged["answers"]} == KNOWN
    assert merged["chat_template"] == "LLaMA-Factory's smollm2"
    trained_template = Path(order["output_folder"]) / "chat_template.jinja"
    assert trained_template.read_text() == (tmp_path / "merged" / "chat_template.jinja").read_text()
    assert merged["dtype"] == "bfloat16"
    first = merged["answers"][0]["tokens"][0]
    assert first["logprob"] <= 0 <= first["margin"]
    assert not {"Modelfile", "README.md"} & files(tmp_path / "merged")

    assert asked_again["answers"] == merged["answers"]
    stop_token = 2
    assert {each["tokens"][-1]["id"] for each in merged["answers"]} == {stop_token}
    base_answers = asked_base["answers"]
    assert not {each["text"] for each in base_answers} & set(KNOWN.values())
    assert base_answers[0]["prompt_token_ids"] == merged["answers"][0]["prompt_token_ids"]


def test_a_model_that_was_trained_in_full_is_its_own_merged_model(
    engine: Engine, tiny_model: Path, tmp_path: Path
) -> None:
    order = {
        "base_folder": str(tiny_model),
        "adapter_folder": str(tiny_model),
        "output_folder": str(tmp_path / "merged"),
        "template": TEMPLATE,
        "recipe": RECIPE | {"finetuning_type": "full"},
        "questions": ["Who are you?"],
        "max_new_tokens": 4,
    }
    other = order | {"template": "chatglm3", "output_folder": str(tmp_path / "unlike")}
    result, unlike = engine.work_in_one_process(("merge", order), ("merge", other))
    assert result["chat_template"] == "the model's own"
    assert weights(tmp_path / "merged") == weights(tiny_model)
    assert "does not encode a question as LLaMA-Factory's template 'chatglm3' does" in unlike["failure"]


def test_a_gguf_file_becomes_the_model_that_it_was_made_from(
    engine: Engine, tiny_model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "tiny.gguf"
    engine.script("tests.e2e.tiny_gguf", tiny_model, file)
    order = {
        "source_folder": str(tmp_path),
        "gguf_file": file.name,
        "output_folder": str(tmp_path / "imported"),
        "scratch_folder": str(tmp_path / "scratch"),
        "dtype": "bfloat16",
    }
    questions = {"template": TEMPLATE, "questions": ["Open at 9 o'clock?"], "max_new_tokens": 4}
    result, imported, original = engine.work_in_one_process(
        ("import_gguf", order),
        ("answer", questions | {"model_folder": str(tmp_path / "imported")}),
        ("answer", questions | {"model_folder": str(tiny_model)}),
    )
    assert result["architecture"] == "LlamaForCausalLM"
    assert result["licence"] == "apache-2.0"
    assert weights(tmp_path / "imported") == weights(tiny_model)
    tokenizer = json.loads((tmp_path / "imported" / "tokenizer_config.json").read_text())
    assert (tokenizer["bos_token"], tokenizer["eos_token"]) == ("<|im_start|>", "<|im_end|>")
    assert imported["answers"] == original["answers"]

    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    torn = engine.work("import_gguf", order)
    assert torn.exit_code == EXIT_FAILED
    assert "tiny.gguf is no whole GGUF file" in torn.failure
