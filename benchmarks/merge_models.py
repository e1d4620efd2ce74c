"""The models that `benchmarks.merge` merges, what PEFT does with them, and whether the bytes are right.

Run in the train engine: `python -m benchmarks.merge_models make|peft|check ARGUMENT…`. Weights are random
and seeded: what a merge costs does not depend on what they say.
"""

import hashlib
import json
import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Layers, hidden size, size between: 0.4, 1.3 and 3.1 GB in bfloat16 with the vocabulary below.
SIZES = {"0.4 GB": (12, 1024, 2816), "1.3 GB": (18, 1536, 4608), "3.1 GB": (28, 2048, 5632)}
VOCABULARY = 32_000
SHARD_BYTES = 10**9
RANK, ALPHA = 16, 24  # a scale that is no power of two
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def make(folder: Path, size: str) -> None:
    """`base` and `adapter` in `folder`: a sharded Llama, and LoRA on all of its linear layers."""
    import torch
    from peft import LoraConfig
    from safetensors.torch import save_file
    from transformers import LlamaConfig

    from tests.e2e.tiny_model import make as make_tiny

    layers, hidden, between = SIZES[size]
    base, adapter = folder / "base", folder / "adapter"
    make_tiny(base)
    for file in base.glob("*.safetensors"):
        file.unlink()
    LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=between,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        tie_word_embeddings=False,
        dtype="bfloat16",
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(base)
    generator = torch.Generator().manual_seed(0)
    places: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    number = 0
    for name, shape in _weights(layers, hidden, between):
        shard[name] = (torch.randn(shape, generator=generator) * 0.02).to(torch.bfloat16)
        if sum(each.nbytes for each in shard.values()) > SHARD_BYTES or name == "lm_head.weight":
            number += 1
            name_of_file = f"model-{number:05}.safetensors"
            save_file(shard, base / name_of_file, metadata={"format": "pt"})
            places |= dict.fromkeys(shard, name_of_file)
            shard = {}
    (base / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    factors = {}
    for name, shape in _weights(layers, hidden, between):
        if len(shape) == 2 and name.split(".")[-2] in LINEAR:
            module = "base_model.model." + name.removesuffix(".weight")
            factors[f"{module}.lora_A.weight"] = torch.randn(RANK, shape[1], generator=generator) * 0.02
            factors[f"{module}.lora_B.weight"] = torch.randn(shape[0], RANK, generator=generator) * 0.02
    adapter.mkdir()
    save_file(factors, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(LINEAR), task_type="CAUSAL_LM").save_pretrained(
        adapter
    )


def _weights(layers: int, hidden: int, between: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "model.embed_tokens.weight", (VOCABULARY, hidden)
    for layer in range(layers):
        name = f"model.layers.{layer}"
        for projection in ("q_proj", "k_proj", "v_proj", "o_proj"):
            yield f"{name}.self_attn.{projection}.weight", (hidden, hidden)
        for projection in ("gate_proj", "up_proj"):
            yield f"{name}.mlp.{projection}.weight", (between, hidden)
        yield f"{name}.mlp.down_proj.weight", (hidden, between)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{name}.{norm}.weight", (hidden,)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (VOCABULARY, hidden)


def peft(folder: Path, output: Path) -> None:
    """What PEFT's documentation says: load, merge_and_unload, save_pretrained."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.bfloat16)
    merged = PeftModel.from_pretrained(model, folder / "adapter").merge_and_unload()
    merged.save_pretrained(output)
    AutoTokenizer.from_pretrained(folder / "base").save_pretrained(output)


def check(folder: Path, output: Path) -> None:
    """Prints how many tensors of `output` are not, byte for byte, what they have to be on every machine."""
    import torch
    from safetensors import safe_open

    def tensors(of: Path) -> dict[str, Path]:
        return {name: file for file in of.glob("*.safetensors") for name in safe_open(file, "pt").keys()}  # noqa: SIM118  not a dict

    merged, base = tensors(output), tensors(folder / "base")
    factors = safe_open(folder / "adapter" / "adapter_model.safetensors", "pt")
    adapted = set(factors.keys())
    wrong = len(merged.keys() ^ base.keys())
    for name in base.keys() & merged.keys():
        weight = safe_open(base[name], "pt").get_tensor(name)
        module = "base_model.model." + name.removesuffix(".weight")
        if f"{module}.lora_A.weight" in adapted:
            a, b = (factors.get_tensor(f"{module}.lora_{each}.weight").double() for each in "AB")
            weight = merged_reference(weight, a, b, name)
        found = safe_open(merged[name], "pt").get_tensor(name)
        wrong += found.dtype != weight.dtype or not torch.equal(
            found.view(torch.int16), weight.view(torch.int16)
        )
    print(json.dumps({"tensors": len(base), "wrong": wrong}))


def merged_reference(
    weight: "torch.Tensor", a: "torch.Tensor", b: "torch.Tensor", name: str
) -> "torch.Tensor":
    """W + scale * B @ A as docs/decisions/2026-11-30-rounding-at-random.md defines it, here by torch.

    The factors are held to grids, so that no order of summing changes the product in float64.
    """
    import torch

    def on_grid(values: torch.Tensor, bits: int, dim: int) -> torch.Tensor:
        exponent = torch.frexp(values.abs().amax(dim=dim, keepdim=True)).exponent
        step = 2.0 ** (exponent - bits).double()
        return (values / step).round() * step

    bits = 53 - math.ceil(math.log2(RANK))
    product = on_grid(b * (ALPHA / RANK), bits - bits // 2, 1) @ on_grid(a, bits // 2, 0)
    total = (weight.float() + product.float()).view(torch.int32)
    rows, columns = weight.shape
    drawn = hashlib.shake_128(name.encode()).digest(2 * (rows + columns))
    numbers = torch.frombuffer(bytearray(drawn), dtype=torch.uint16).int()
    total += (numbers[:rows, None] + numbers[None, rows:]) & 0xFFFF
    stored = (total >> 16).to(torch.int16)
    stored[stored == torch.iinfo(torch.int16).min] = 0  # minus zero
    return stored.view(torch.bfloat16)


def main(what: str, *arguments: str) -> None:
    if what == "make":
        folder = Path(arguments[0])
        shutil.rmtree(folder, ignore_errors=True)
        make(folder, arguments[1])
    elif what == "peft":
        peft(Path(arguments[0]), Path(arguments[1]))
    else:
        check(Path(arguments[0]), Path(arguments[1]))


if __name__ == "__main__":
    main(*sys.argv[1:])
