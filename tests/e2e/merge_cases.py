"""Tiny models with adapters of every kind, and what PEFT itself makes of each, in float32.

Run in the train engine: `python -m tests.e2e.merge_cases FOLDER`. Each case is a folder with `base`,
`adapter` and `expected.safetensors`: the state of the merged model in float32, by `merge_and_unload`.
Weights are random, and large, so that a wrong merge is far off.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHARD_SIZE = "100KB"
INPUT = ("embed_tokens.weight", "wte.weight")
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def llama(folder: Path, dtype: str = "bfloat16", **changes: Any) -> None:
    """A Llama whose hidden size is not a power of two; the output projection is square."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(7)
    sizes = {"hidden_size": 96, "intermediate_size": 160, "num_attention_heads": 3, "head_dim": 32}
    config = LlamaConfig(
        vocab_size=331,
        num_hidden_layers=3,
        num_key_value_heads=1,
        initializer_range=0.1,
        **{"tie_word_embeddings": False, **sizes, **changes},
    )
    model = LlamaForCausalLM(config).to(getattr(torch, dtype))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder, max_shard_size=SHARD_SIZE)


def tied(folder: Path) -> None:
    llama(folder, tie_word_embeddings=True)


def gpt2(folder: Path) -> None:
    """Stores its weights as (in, out), and its attention projection is square."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(7)
    config = GPT2Config(vocab_size=101, n_positions=64, n_embd=48, n_layer=2, n_head=3)
    GPT2LMHeadModel(config).to(torch.bfloat16).save_pretrained(folder)


def half(model: Any) -> None:
    model.half()


def bfloat16(model: Any) -> None:
    import torch

    model.to(torch.bfloat16)


def lora_times(factor: float) -> Callable[[Any], None]:
    """Multiplies what LoRA changes."""

    def change(model: Any) -> None:
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data *= factor

    return change


# name: (make the base, LoRA's settings, what is done to the adapted model before it is saved)
CASES: dict[str, tuple[Callable[[Path], None], dict[str, Any], Callable[[Any], None] | None]] = {
    "lora": (llama, {}, None),
    "float32": (lambda folder: llama(folder, "float32"), {}, None),
    "float16": (lambda folder: llama(folder, "float16"), {}, None),
    "adapter_in_float16": (llama, {}, half),
    "adapter_in_bfloat16": (llama, {}, bfloat16),
    "rslora": (llama, {"use_rslora": True, "lora_alpha": 5}, None),
    "patterns": (
        llama,
        {
            "rank_pattern": {"q_proj": 3, r"layers\.1\..*up_proj": 7},
            "alpha_pattern": {r"model.layers.[02].self_attn.v_proj": 2, "down_proj": 31},
            "use_rslora": True,
        },
        None,
    ),
    "some_layers": (llama, {"target_modules": ["q_proj"], "layers_to_transform": [1]}, None),
    "dora": (llama, {"use_dora": True}, None),
    "dora_float32": (lambda folder: llama(folder, "float32"), {"use_dora": True}, None),
    "wrong_fan_in_fan_out": (llama, {"fan_in_fan_out": True}, None),
    "modules_to_save": (llama, {"modules_to_save": ["lm_head", "norm"]}, None),
    "embedding": (llama, {"target_modules": [*LINEAR, "embed_tokens"]}, None),
    "dora_embedding": (llama, {"target_modules": ["q_proj", "embed_tokens"], "use_dora": True}, None),
    "lm_head": (llama, {"target_modules": [*LINEAR, "lm_head"]}, None),
    "bias_all": (
        lambda folder: llama(folder, attention_bias=True, mlp_bias=True),
        {"bias": "all"},
        None,
    ),
    "bias_lora_only": (lambda folder: llama(folder, attention_bias=True), {"bias": "lora_only"}, None),
    "lora_bias": (
        lambda folder: llama(folder, attention_bias=True),
        {"lora_bias": True, "target_modules": ["q_proj", "o_proj"]},
        None,
    ),
    "tied": (tied, {}, None),
    "tied_saved_alike": (
        tied,
        {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
        None,
    ),
    "untied_both": (tied, {"modules_to_save": ["embed_tokens", "lm_head"]}, None),
    "untied_output": (tied, {"modules_to_save": ["lm_head"]}, None),
    "untied_input": (tied, {"modules_to_save": ["embed_tokens"]}, None),
    "untied_lora_output": (tied, {"target_modules": [*LINEAR, "lm_head"]}, None),
    "untied_lora_input": (tied, {"target_modules": ["q_proj", "embed_tokens"]}, None),
    "untied_lora_both": (tied, {"target_modules": ["embed_tokens", "lm_head"], "use_rslora": True}, None),
    "untied_dora_output": (tied, {"target_modules": ["lm_head"], "use_dora": True}, None),
    "untied_one_file": (
        lambda folder: _one_file(folder, tie_word_embeddings=True),
        {"modules_to_save": ["embed_tokens", "lm_head"]},
        None,
    ),
    "untied_gpt2": (gpt2, {"target_modules": ["c_attn", "lm_head"]}, None),
    "gpt2": (gpt2, {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}, None),
    "gpt2_dora": (gpt2, {"target_modules": ["c_attn", "c_proj"], "use_dora": True}, None),
    "no_shards": (lambda folder: _one_file(folder), {}, None),
}


def _one_file(folder: Path, **changes: Any) -> None:
    llama(folder, **changes)
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    for file in folder.glob("model*"):
        file.unlink()
    model.save_pretrained(folder)


def make(folder: Path, case: str) -> None:
    base, settings, change = CASES[case]
    base(folder / "base")
    adapt(folder / "base", folder / "adapter", settings, change)
    expect(folder)


def adapt(
    base: Path, adapter: Path, settings: dict[str, Any], change: Callable[[Any], None] | None = None
) -> None:
    """A random adapter, none of whose tensors is zero, saved as PEFT saves it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(11)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    defaults = {"r": 5, "lora_alpha": 8, "target_modules": LINEAR, "init_lora_weights": False}
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **{**defaults, **settings}))
    for name, parameter in adapted.named_parameters():
        if (
            "magnitude" in name
            or "modules_to_save" in name
            or (parameter.requires_grad and "lora_" not in name)
        ):
            parameter.data *= 1 + 0.2 * torch.rand_like(parameter)
        elif "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    if change:
        change(adapted)
    adapted.save_pretrained(adapter)


def expect(folder: Path) -> None:
    """What PEFT makes of base and adapter, both read anew."""
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    names = {name for file in (folder / "base").glob("*.safetensors") for name in load_file(file)}
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    if folder.name.startswith("untied"):
        names.add("lm_head.weight")
        untie(model)
    merged = PeftModel.from_pretrained(model, folder / "adapter").merge_and_unload()
    state = merged.state_dict()
    expected = {name: state.get(name, state.get(f"transformer.{name}")).clone() for name in names}
    save_file(expected, folder / "expected.safetensors")


def untie(model: Any) -> None:
    """Two tensors of embeddings where the model has one: PEFT's merge would add to both."""
    import torch

    output = model.get_output_embeddings()
    output.weight = torch.nn.Parameter(output.weight.detach().clone())
    model.config.tie_word_embeddings = False


def main(folder: Path, cases: list[str]) -> None:
    for case in cases or list(CASES):
        make(folder / case, case)
    (folder / "cases.json").write_text(json.dumps(list(CASES)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
