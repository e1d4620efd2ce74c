"""What the tests of merging share: a report that remembers, models written by hand, tensors read back.

Nothing here needs an engine. Run as a module it merges in a process of its own, which a test may kill:
`python -m tests.unit.workers.merging CASE OUTPUT`.
"""

import json
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from llm_assets.workers.merging.adapters import ADAPTER_WEIGHTS
from llm_assets.workers.merging.arithmetic import as_floats
from llm_assets.workers.merging.models import MergedModel, Request, merge_models
from llm_assets.workers.merging.weight_files import INDEX, SINGLE, read_layout, read_model
from llm_assets.workers.trained_files import ADAPTER_CONFIG

Array = np.ndarray[Any, Any]
RawTensor = tuple[str, tuple[int, ...], bytes]
LORA: dict[str, Any] = {"peft_type": "LORA", "r": 4, "lora_alpha": 6}
PREFIX = "base_model.model."


@dataclass
class Remembered:
    """Stands where a worker reports to its run."""

    lines: list[str] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)

    def line(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, values: Mapping[str, Any], *, last: bool = False) -> None:
        assert values["merged_bytes"] <= values["total_bytes"]

    def file(self, values: Mapping[str, Any]) -> None:
        self.files.append(dict(values))


def merge(
    case: Path,
    output: Path,
    report: Remembered | None = None,
    base_files: Mapping[str, str] | None = None,
    adapter_files: Mapping[str, str] | None = None,
) -> MergedModel:
    """Merges `adapter` into `base` of a case's folder."""
    request = Request(
        adapter_folder=case / "adapter", output_folder=output, adapter_files=adapter_files or {}
    )
    [merged] = merge_models(case / "base", [request], base_files or {}, report or Remembered())  # type: ignore[arg-type]
    return merged


def write_tensors(path: Path, tensors: Mapping[str, Array], dtype: str = "BF16") -> None:
    """A safetensors file of float32 values, cut to bfloat16 unless `dtype` is another."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, values in tensors.items():
        kept = values.astype(np.float32)
        raw = kept.tobytes() if dtype == "F32" else (kept.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": list(values.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write_base(folder: Path, shards: Mapping[str, Mapping[str, Array]], **config: Any) -> None:
    """A base model of these files; one called `model.safetensors` needs no index."""
    for file, tensors in shards.items():
        write_tensors(folder / file, tensors)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    if SINGLE not in shards:
        places = {name: file for file, tensors in shards.items() for name in tensors}
        (folder / INDEX).write_text(json.dumps({"weight_map": places}))


def write_adapter(folder: Path, tensors: Mapping[str, Array], **config: Any) -> None:
    write_tensors(
        folder / ADAPTER_WEIGHTS, {PREFIX + name: values for name, values in tensors.items()}, "F32"
    )
    (folder / ADAPTER_CONFIG).write_text(json.dumps({**LORA, **config}))


def lora(module: str, rows: int, columns: int, rank: int = 4, seed: int = 0) -> dict[str, Array]:
    """A random A and B for one module."""
    rng = np.random.default_rng(seed)
    return {
        f"{module}.lora_A.weight": rng.standard_normal((rank, columns), np.float32),
        f"{module}.lora_B.weight": rng.standard_normal((rows, rank), np.float32),
    }


def raw_tensors(*files: Path) -> dict[str, RawTensor]:
    """Type, shape and bytes of every tensor."""
    found = {}
    for path in files:
        content = path.read_bytes()
        for tensor in read_layout(path).tensors:
            found[tensor.name] = (tensor.dtype, tensor.shape, content[tensor.start : tensor.end])
    return found


def model_tensors(folder: Path) -> dict[str, RawTensor]:
    return raw_tensors(*(file.path for file in read_model(folder)))


def values(tensor: RawTensor) -> Array:
    dtype, shape, raw = tensor
    return as_floats(np.frombuffer(raw, np.uint8), dtype, shape)


if __name__ == "__main__":
    merge(Path(sys.argv[1]), Path(sys.argv[2]))
