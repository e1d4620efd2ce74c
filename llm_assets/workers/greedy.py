"""What a model answers when it always takes the likeliest token, and how sure it was of each.

The reference that a served copy is compared with: the margin between the two likeliest tokens
tells where another machine's rounding may rightly choose differently.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm_assets.workers.chat_template import Encoding
from llm_assets.workers.reporting import Report

Answer = dict[str, Any]
Token = dict[str, Any]


def answers(
    folder: Path,
    encoding: Encoding,
    questions: Sequence[str],
    *,
    max_new_tokens: int,
    dtype: str,
    report: Report,
) -> list[Answer]:
    """One answer a question, each asked alone. `tokens` ends with the stop token where the model stopped."""
    if not questions:
        return []
    model = _load(folder, dtype)
    given = []
    for question in questions:
        prompt_ids = encoding.prompt_ids([{"role": "user", "content": question}])
        tokens = _greedy(model, prompt_ids, encoding.stop_ids(), max_new_tokens)
        text = encoding.tokenizer.decode([token["id"] for token in tokens], skip_special_tokens=True)
        report.line(f"{question!r} is answered with {text.strip()!r}")
        given.append({"question": question, "text": text, "prompt_token_ids": prompt_ids, "tokens": tokens})
    return given


def _load(folder: Path, dtype: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto" if dtype == "auto" else getattr(torch, dtype), use_safetensors=True
    )
    model.generation_config = GenerationConfig()  # no sampling, no penalties: the likeliest token
    return model.to(device).eval()


def _greedy(model: Any, prompt_ids: list[int], stop_ids: list[int], max_new_tokens: int) -> list[Token]:
    import torch

    prompt = torch.tensor([prompt_ids], device=model.device)
    generated = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=stop_ids,
        pad_token_id=stop_ids[0],
        output_logits=True,
        return_dict_in_generate=True,
    )
    ids = generated.sequences[0, len(prompt_ids) :].tolist()
    return [_token(each, logits[0]) for each, logits in zip(ids, generated.logits, strict=True)]


def _token(token_id: int, logits: Any) -> Token:
    logprobs = logits.float().log_softmax(dim=-1)
    first, second = logprobs.topk(2).values.tolist()
    logprob = float(logprobs[token_id])
    return {"id": token_id, "logprob": round(logprob, 6), "margin": round(first - second, 6)}
