"""The tokenizer that a GGUF file describes, as a fast tokenizer.

transformers reads the vocabulary, but takes the special tokens from its own defaults (an end of
reply that is never met) and splits text as GPT-2 does, whatever `tokenizer.ggml.pre` says. Both are
put right here from the file's own metadata. Ways of splitting: llama.cpp, `llama-vocab.cpp`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

SPECIAL_TOKENS = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
}
# GPT-2's splitting, with every digit a token of its own.
SINGLE_DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva")


def build(file: Path, fields: Mapping[str, Any]) -> Any:
    """`fields`: the file's metadata by name."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    backend = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).backend_tokenizer
    if fields["tokenizer.ggml.model"] == "gpt2":
        _split_as_declared(backend, fields.get("tokenizer.ggml.pre"))
    vocabulary = fields["tokenizer.ggml.tokens"]
    special = {name: vocabulary[fields[key]] for name, key in SPECIAL_TOKENS.items() if key in fields}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, clean_up_tokenization_spaces=False, **_length(fields), **special
    )
    tokenizer.chat_template = fields.get("tokenizer.chat_template")
    return tokenizer


def _split_as_declared(backend: Any, pre: str | None) -> None:
    from tokenizers import decoders, pre_tokenizers

    backend.decoder = decoders.ByteLevel()
    if pre in SINGLE_DIGITS:
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        digits = pre_tokenizers.Digits(individual_digits=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])


def _length(fields: Mapping[str, Any]) -> dict[str, int]:
    length = fields.get(f"{fields['general.architecture']}.context_length")
    return {"model_max_length": int(length)} if length else {}
