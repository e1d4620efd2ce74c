"""The tiny model as a GGUF file, written as llama.cpp's converter writes one.

Run in the train engine: `python tests/e2e/tiny_gguf.py MODEL_FOLDER FILE.gguf`. Weights are float32,
so nothing is lost and importing the file must give the model back.
"""

import json
import sys
from pathlib import Path
from typing import Any

BLOCK_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
NAMES = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}


def write(model: Path, file: Path) -> None:
    from gguf import GGUFWriter

    config = json.loads((model / "config.json").read_text())
    writer = GGUFWriter(file, "llama")
    writer.add_name("tiny")
    writer.add_license("apache-2.0")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    _add_tokenizer(writer, model)
    _add_tensors(writer, model, config)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: Any, model: Path) -> None:
    content = json.loads((model / "tokenizer.json").read_text())
    special = {token["id"] for token in content["added_tokens"]}
    vocabulary = sorted(content["model"]["vocab"].items(), key=lambda entry: entry[1])
    control, normal = 3, 1
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([control if index in special else normal for _, index in vocabulary])
    writer.add_token_merges([" ".join(pair) for pair in content["model"]["merges"]])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_chat_template((model / "chat_template.jinja").read_text())


def _add_tensors(writer: Any, model: Path, config: dict[str, Any]) -> None:
    from safetensors.torch import load_file

    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, tensor in load_file(model / "model.safetensors").items():
        weights = tensor.float().numpy()
        projection = name.removesuffix(".weight").rpartition(".")[2]
        if projection in heads:
            weights = _interleaved(weights, heads[projection])
        writer.add_tensor(_gguf_name(name), weights)


def _gguf_name(name: str) -> str:
    if name in NAMES:
        return NAMES[name]
    _, _, block, part = name.removesuffix(".weight").split(".", 3)
    return f"blk.{block}.{BLOCK_NAMES[part]}.weight"


def _interleaved(weights: Any, heads: int) -> Any:
    """Rotary halves as llama.cpp orders them (`LlamaModel.permute` of its converter)."""
    half = weights.shape[0] // heads // 2
    return weights.reshape(heads, 2, half, weights.shape[1]).swapaxes(1, 2).reshape(weights.shape)


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
