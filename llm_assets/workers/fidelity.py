"""Whether a merged model says what base and adapter say: next-token distributions, side by side.

Both are run over the same tokens (the known questions with the merged model's answers, held-out rows with
their replies), base and adapter unmerged by PEFT. Both compute in float32, one after the other, so what
differs is the rounding of the merged weights alone. Not covered: sampling, long contexts, and models that do
not fit into the memory of the GPU or the machine in float32: those are not compared, and it is said.

The limit is measured on the same tokens: base and adapter are merged in float32, and every merged weight is
rounded at random to one of its two neighbours in the merged model's type (stochastic rounding, on average
exact). That is an error of the same kind, independent of the merge under test, and of about twice its
variance. A merge that is further off than FACTOR times that is not off by rounding. Weights that the
type holds exactly are left alone, so for float32 only the noise of arithmetic is allowed.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_assets.workers import machine
from llm_assets.workers.chat_template import Encoding
from llm_assets.workers.greedy import Answer
from llm_assets.workers.merging.base_models import read_base
from llm_assets.workers.merging.weight_files import read_model
from llm_assets.workers.reporting import Order, Report

DROPPED_BITS = {"bfloat16": 16, "float16": 13}  # of a float32's mantissa
FACTOR = 4
ROOM = 1.3  # for activations, logits and the adapter beside the weights
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
        report.line("Not compared with base and adapter: there is no question and no held-out row.")
        return None
    device = _device(Path(order["output_folder"]))
    if device is None:
        report.line("Not compared with base and adapter: in float32 they do not fit into memory.")
        return None
    merged = _distributions(_load(Path(order["output_folder"]), device), prompts)
    adapted = _adapted(order, device)
    reference = _distributions(adapted, prompts)
    rounded = _distributions(_rounded_at_random(adapted.merge_and_unload(), dtype), prompts)
    rows = [_row(*each) for each in zip(prompts, reference, merged, strict=True)]
    found = _summary(rows)
    control = _summary([_row(*each) for each in zip(prompts, reference, rounded, strict=True)])
    limit = FACTOR * control["mean_kl"] + ARITHMETIC_NOISE
    report.line(
        f"Merged against base and adapter at {found['positions']} tokens: mean KL {found['mean_kl']:.2g} "
        f"(at most {limit:.2g}), the same likeliest token at {found['top1_agreement']:.1%}."
    )
    return found | {
        "limit_mean_kl": limit,
        "rounded_at_random_mean_kl": control["mean_kl"],
        "computed_on": device,
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


def _device(model: Path) -> str | None:
    """Where the model fits in float32."""
    import torch

    elements = sum(math.prod(tensor.shape) for file in read_model(model) for tensor in file.tensors)
    needed_bytes = int(elements * 4 * ROOM)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        if torch.cuda.mem_get_info()[0] > needed_bytes:
            return "cuda"
    return "cpu" if machine.available_memory_bytes() > needed_bytes else None


def _load(folder: Path, device: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    return model.to(device).eval()


def _adapted(order: Order, device: str) -> Any:
    """Base and adapter, with two tensors of embeddings where the merged model has two."""
    import torch
    from peft import PeftModel

    model = _load(Path(order["base_folder"]), device)
    output = model.get_output_embeddings()
    if not read_base(Path(order["output_folder"])).has_tied_embeddings and model.config.tie_word_embeddings:
        output.weight = torch.nn.Parameter(output.weight.detach().clone())
        model.config.tie_word_embeddings = False  # else PEFT would merge into both what is for one
    return PeftModel.from_pretrained(model, Path(order["adapter_folder"])).eval()


def _rounded_at_random(model: Any, dtype: str) -> Any:
    """Every weight that the type does not hold exactly becomes one of its two neighbours there."""
    import torch

    bits = DROPPED_BITS.get(dtype, 0)
    generator = torch.Generator(device=model.device).manual_seed(0)
    for parameter in model.parameters() if bits else ():
        values = parameter.data
        if not torch.equal(values, values.to(getattr(torch, dtype)).float()):
            raw = values.view(torch.int32)
            raw += torch.randint(
                1 << bits, raw.shape, generator=generator, dtype=torch.int32, device=raw.device
            )
            raw &= -(1 << bits)
    return model


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
