"""Small models in every form that a base model comes in."""

import hashlib
import json
import struct
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "acme/tiny"
TOKEN = "hf_a_secret_of_the_company"


def safetensors(**tensors: bytes) -> bytes:
    """A file of one-dimensional U8 tensors."""
    header, start = {}, 0
    for name, data in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [start, start + len(data)]}
        start += len(data)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(tensors.values())


def gguf(*, elements: int = 64, version: int = 3, kind: int = 0) -> bytes:
    """A llama of one float32 vector."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    values = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        text("general.license") + struct.pack("<I", 8) + text("apache-2.0"),
        text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b"),
        text("tokenizer.ggml.scores") + struct.pack("<IIQ", 9, 6, 2) + bytes(8),
        text("nested") + struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ", 0, 3) + bytes(3),
    ]
    header = b"GGUF" + struct.pack("<IQQ", version, 1, len(values)) + b"".join(values)
    header += text("token_embd.weight") + struct.pack("<IQIQ", 1, elements, kind, 0)
    return header + bytes(-len(header) % 32) + bytes(elements * 4)


def model_files() -> dict[str, bytes]:
    return {
        "config.json": b'{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}',
        "model.safetensors": safetensors(a=b"\1" * 100_000, b=b"\2" * 50_000),
        "tokenizer.json": b"{}",
        "README.md": b"---\nlanguage: en\nlicense: apache-2.0\n---\n# Tiny\n",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole model on disk."""
    path = tmp_path / "model"
    path.mkdir()
    for name, content in model_files().items():
        (path / name).write_bytes(content)
    return path


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
