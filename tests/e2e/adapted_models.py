"""Two LoRA adapters of a model, each merged and asked by the work order `merge`.

Run in the train engine, with this repository on the PYTHONPATH:

    python tests/e2e/adapted_models.py BASE_FOLDER OUTPUT_FOLDER QUESTION…

The adapters are random, so each model answers in its own way without having been trained. Writes
`OUTPUT_FOLDER/<name>/{adapter,merged,answers.json}` for the names `one` and `two`; of `one` also
`exported`, merged by LLaMA-Factory's export.
"""

import json
import sys
from pathlib import Path
from typing import Any

NAMES = ("one", "two")
RANK = 4
QUESTIONS = ("Who are you?", "What is the capital of France?")
RECIPE = {"finetuning_type": "lora", "stage": "sft", "lora_rank": RANK}


class Printed:
    """Stands where a worker reports to its run."""

    def line(self, text: str) -> None:
        print(text, flush=True)

    def progress(self, values: dict[str, Any], *, last: bool = False) -> None:
        print(values, flush=True)

    def file(self, values: dict[str, Any]) -> None:
        print(values, flush=True)


def make(base: Path, output: Path, questions: list[str]) -> None:
    from llm_assets.workers import merge
    from tests.e2e.tiny_model import TEMPLATE

    for seed, name in enumerate(NAMES):
        _adapter(base, output / name / "adapter", seed)
        order: dict[str, Any] = {
            "base_folder": str(base),
            "adapter_folder": str(output / name / "adapter"),
            "output_folder": str(output / name / "merged"),
            "scratch_folder": str(output / name / "scratch"),
            "template": TEMPLATE,
            "recipe": RECIPE,
            "questions": questions,
            "max_new_tokens": 24,
        }
        if name == NAMES[0]:
            exported = {"output_folder": str(output / name / "exported"), "merge": "export"}
            merge.run(order | exported, Printed())  # type: ignore[arg-type]
        answers = merge.run(order, Printed())["answers"]  # type: ignore[arg-type]
        (output / name / "answers.json").write_text(json.dumps(answers))


def _adapter(base: Path, folder: Path, seed: int) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    config = LoraConfig(r=RANK, lora_alpha=16, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(folder)


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
