"""Whether a merged model says what base and adapter say: next-token distributions, side by side.

Both are run over the same tokens (the known questions with the merged model's answers, held-out rows with
their replies), base and adapter unmerged by PEFT. On a CPU both compute in float32, so what differs is the
rounding of the merged weights alone. Not covered: sampling, long contexts, and models that do not fit
into memory, which could not be asked the known questions either.

The limit follows from the rounding. A weight is off by at most u = 2^-8 of itself in bfloat16 (2^-11 in
float16), and independently of the others; so each of n merged matrices turns its output by at most u,
n of them by u * sqrt(n), and the logits, whose spread over the vocabulary is s, move by about
u * s * sqrt(n). Two distributions whose logits differ by noise d have the divergence d^2 / 2. The limit
takes d twice as large, because later layers may amplify what earlier ones turned. A wrong scale or a
forgotten tensor is orders of magnitude beyond it.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_assets.workers import machine
from llm_assets.workers.chat_template import Encoding
from llm_assets.workers.greedy import Answer
from llm_assets.workers.merging.adapters import ADAPTER_WEIGHTS
from llm_assets.workers.merging.weight_files import read_layout
from llm_assets.workers.reporting import Order, Report

UNIT_ROUNDOFF = {"bfloat16": 2.0**-8, "float16": 2.0**-11, "float32": 2.0**-24}
AMPLIFIED = 2.0
ARITHMETIC_NOISE = 1e-6  # what summing in another order does to float32 logits
MOST_PROMPT_TOKENS, MOST_REPLY_TOKENS = 256, 32


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """Tokens, and from where on the next token is compared; `name` shows no row of a dataset."""

    name: str
    kind: str
    ids: tuple[int, ...]
    first: int


def compare(
    order: Order, encoding: Encoding, answers: Sequence[Answer], dtype: str, report: Report
) -> dict[str, Any] | None:
    """The fidelity report of a merged model; None where there is nothing to ask."""
    started = time.monotonic()
    prompts = [*_known(answers), *_held_out(encoding, order.get("held_out", []))]
    if not prompts:
        return None
    compute = "float32" if order.get("device", "cpu") == "cpu" else str(order.get("dtype", "auto"))
    merged = _distributions(_load(Path(order["output_folder"]), compute), prompts)
    reference = _distributions(
        _load(Path(order["base_folder"]), compute, Path(order["adapter_folder"])), prompts
    )
    rows = [_row(*each) for each in zip(prompts, reference, merged, strict=True)]
    found = _summary(rows)
    roundoff = max(UNIT_ROUNDOFF.get(each, 0.0) for each in (dtype, compute))
    spread = sum(row["spread"] * row["positions"] for row in rows) / found["positions"]
    limit = _matrices(order) * (AMPLIFIED * roundoff * spread) ** 2 / 2 + ARITHMETIC_NOISE
    report.line(
        f"Merged against base and adapter at {found['positions']} tokens: mean KL {found['mean_kl']:.2g} "
        f"(at most {limit:.2g}), the same likeliest token at {found['top1_agreement']:.1%}."
    )
    return found | {
        "limit_mean_kl": limit,
        "unit_roundoff": roundoff,
        "compute_dtype": compute,
        "prompts": rows,
        "seconds": round(time.monotonic() - started, 3),
        **machine.peak_memory(),
    }


def _known(answers: Sequence[Answer]) -> Iterator[Prompt]:
    for answer in answers:
        asked = answer["prompt_token_ids"]
        ids = (*asked, *(token["id"] for token in answer["tokens"][:MOST_REPLY_TOKENS]))
        yield Prompt(name=answer["question"], kind="known question", ids=ids, first=len(asked) - 1)


def _held_out(encoding: Encoding, rows: Sequence[Mapping[str, Any]]) -> Iterator[Prompt]:
    for number, row in enumerate(rows, start=1):
        reply = encoding.tokenizer.encode(row["reply"], add_special_tokens=False)[:MOST_REPLY_TOKENS]
        asked = encoding.prompt_ids(list(row["messages"])) if row["messages"] else reply[:1]
        if 0 < len(asked) <= MOST_PROMPT_TOKENS:
            reply = reply if row["messages"] else reply[1:]
            ids = (*asked, *reply)
            yield Prompt(name=f"held-out row {number}", kind="held-out", ids=ids, first=len(asked) - 1)


def _load(folder: Path, dtype: str, adapter: Path | None = None) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto" if dtype == "auto" else getattr(torch, dtype), use_safetensors=True
    )
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _distributions(model: Any, prompts: Sequence[Prompt]) -> list[Any]:
    """The logits (positions, vocabulary) of each prompt, in float32 on the CPU."""
    import torch

    with torch.inference_mode():
        return [
            model(torch.tensor([prompt.ids], device=model.device)).logits[0, prompt.first :].float().cpu()
            for prompt in prompts
        ]


def _row(prompt: Prompt, reference: Any, merged: Any) -> dict[str, Any]:
    wanted, found = (each.double().log_softmax(dim=-1) for each in (reference, merged))
    divergence = (wanted.exp() * (wanted - found)).sum(dim=-1).clamp(min=0)
    same = wanted.argmax(dim=-1) == found.argmax(dim=-1)
    return {
        "prompt": prompt.name,
        "kind": prompt.kind,
        "positions": len(divergence),
        "mean_kl": float(divergence.mean()),
        "max_kl": float(divergence.max()),
        "top1_agreement": float(same.double().mean()),
        "spread": float(reference.std(dim=-1).mean()),
    }


def _summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    positions = sum(row["positions"] for row in rows)

    def mean(key: str) -> float:
        return float(sum(row[key] * row["positions"] for row in rows) / positions)

    return {
        "positions": positions,
        "held_out_prompts": sum(row["kind"] == "held-out" for row in rows),
        "mean_kl": mean("mean_kl"),
        "max_kl": max(row["max_kl"] for row in rows),
        "top1_agreement": mean("top1_agreement"),
    }


def _matrices(order: Order) -> int:
    """How many of the base's matrices the adapter changes."""
    tensors = read_layout(Path(order["adapter_folder"]) / ADAPTER_WEIGHTS).tensors
    return max(1, sum(".lora_B." in each.name or ".lora_embedding_B" in each.name for each in tensors))
