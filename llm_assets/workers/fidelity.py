"""Whether a merged model says what base and adapter say: next-token distributions, side by side.

All are run over the same tokens (the known questions with the merged model's answers, held-out rows with
their replies), base and adapter unmerged by PEFT, in float32 and one after the other. Not covered: sampling,
long contexts, and models that do not fit into the memory of the GPU or the machine in float32: those are not
compared, and it is said.

Two things are asked of the mean KL divergence of the merged model from base and adapter:

- It is small beside that of the base alone: the merge keeps what the adapter changed. What was trained
  gently is easily lost where the merged weights are rounded. The losses on the held-out rows say the same.
- It is no more than FACTOR times that of base and adapter merged in float32 and rounded in the same way (at
  random, with other numbers, or to nearest): nothing but rounding went wrong.
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
TINY = 1e-12  # an adapter that changes nothing
HELD_OUT = "held-out"
LOSSES = ("base", "adapter", "merged")
MOST_PROMPT_TOKENS, MOST_REPLY_TOKENS = 256, 32


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """Tokens, and from where on the next token is compared; `name` shows no row of a dataset."""

    name: str
    kind: str
    ids: tuple[int, ...]
    first: int


def compare(
    order: Order,
    encoding: Encoding,
    answers: Sequence[Answer],
    dtype: str,
    report: Report,
    *,
    at_random: bool,
) -> dict[str, Any] | None:
    """The fidelity report of a merged model; None where there is nothing to ask.

    KL divergences and losses are in nats for a token. `at_random`: how the merged weights were rounded.
    """
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
    with adapted.disable_adapter():
        base = _distributions(adapted, prompts)
    rounded = _distributions(_rounded(adapted.merge_and_unload(), dtype, at_random=at_random), prompts)
    rows = [_row(*each) for each in zip(prompts, reference, merged, base, rounded, strict=True)]
    found = _summary(rows)
    limit = FACTOR * found["rounded_mean_kl"] + ARITHMETIC_NOISE
    report.line(
        f"Merged against base and adapter at {found['positions']} tokens: mean KL {found['mean_kl']:.2g} "
        f"(rounding may make it {limit:.2g}, the base alone has {found['base_mean_kl']:.2g}), the same "
        f"likeliest token at {found['top1_agreement']:.1%}."
    )
    return found | {
        "limit_mean_kl": limit,
        "lost_share": _lost_share(found),
        "computed_on": device,
        "prompts": rows,
        "seconds": round(time.monotonic() - started, 3),
        **machine.peak_memory(),
    }


def _lost_share(found: Mapping[str, Any]) -> float:
    """How much of what the adapter changes is not in the merged model, 0 to 1."""
    beyond_noise = max(0.0, found["mean_kl"] - ARITHMETIC_NOISE)
    return min(1.0, beyond_noise / max(found["base_mean_kl"], TINY))


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
            yield Prompt(name=f"held-out row {number}", kind=HELD_OUT, ids=ids, first=len(asked) - 1)


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


def _rounded(model: Any, dtype: str, *, at_random: bool) -> Any:
    """Every weight that the type does not hold exactly becomes one of its two neighbours there."""
    import torch

    bits = DROPPED_BITS.get(dtype, 0)
    generator = torch.Generator(device=model.device).manual_seed(0)
    for parameter in model.parameters() if bits else ():
        values = parameter.data
        nearest = values.to(getattr(torch, dtype)).float()
        if not at_random:
            parameter.data = nearest
        elif not torch.equal(values, nearest):
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


def _row(prompt: Prompt, reference: Any, merged: Any, base: Any, rounded: Any) -> dict[str, Any]:
    said = {"adapter": reference, "merged": merged, "base": base, "rounded": rounded}
    logs = {name: logits.double().log_softmax(dim=-1) for name, logits in said.items()}
    divergence = _divergence(logs["adapter"], logs["merged"])
    same = logs["adapter"].argmax(dim=-1) == logs["merged"].argmax(dim=-1)
    return {
        "prompt": prompt.name,
        "kind": prompt.kind,
        "positions": len(divergence),
        "mean_kl": float(divergence.mean()),
        "max_kl": float(divergence.max()),
        "base_mean_kl": float(_divergence(logs["adapter"], logs["base"]).mean()),
        "rounded_mean_kl": float(_divergence(logs["adapter"], logs["rounded"]).mean()),
        "top1_agreement": float(same.double().mean()),
        **{f"{name}_loss": _loss(prompt, logs[name]) for name in LOSSES},
    }


def _divergence(wanted: Any, found: Any) -> Any:
    return (wanted.exp() * (wanted - found)).sum(dim=-1).clamp(min=0)


def _loss(prompt: Prompt, logs: Any) -> float | None:
    """The mean loss of a reply's tokens; None where it has one token, or the model wrote it itself."""
    import torch

    wanted = torch.tensor(prompt.ids[prompt.first + 1 :])
    if prompt.kind != HELD_OUT or not len(wanted):
        return None
    return float(-logs[: len(wanted)].gather(1, wanted[:, None]).mean())


def _summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    def mean(key: str) -> float | None:
        kept = [row for row in rows if row[key] is not None]
        positions = sum(row["positions"] for row in kept)
        return sum(row[key] * row["positions"] for row in kept) / positions if kept else None

    means = ("mean_kl", "base_mean_kl", "rounded_mean_kl", "top1_agreement")
    return {
        "positions": sum(row["positions"] for row in rows),
        "held_out_prompts": sum(row["kind"] == HELD_OUT for row in rows),
        "max_kl": max(row["max_kl"] for row in rows),
        **{key: mean(key) for key in (*means, *(f"{name}_loss" for name in LOSSES))},
    }
