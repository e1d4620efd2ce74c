"""What the tests of merging share: a report that remembers, and tensors read without an engine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from llm_assets.workers.merging.arithmetic import as_floats
from llm_assets.workers.merging.models import MergedModel, Request, merge_models
from llm_assets.workers.merging.weight_files import ITEM_BYTES, read_layout, read_model


@dataclass
class Remembered:
    """Stands where a worker reports to its run."""

    lines: list[str] = field(default_factory=list)
    files: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def line(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, values: Mapping[str, Any], *, last: bool = False) -> None:
        assert values["merged_bytes"] <= values["total_bytes"]

    def file(self, values: Mapping[str, Any], folder: str) -> None:
        self.files.append((folder, dict(values)))


def merge(
    case: Path, output: Path, report: Remembered | None = None, base_files: Mapping[str, str] | None = None
) -> MergedModel:
    """Merges `adapter` into `base` of a case's folder."""
    request = Request(adapter_folder=case / "adapter", output_folder=output, adapter_files={})
    [merged] = merge_models(case / "base", [request], base_files or {}, report or Remembered())  # type: ignore[arg-type]
    return merged


def raw_tensors(*files: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Type, shape and bytes of every tensor."""
    found = {}
    for path in files:
        content = path.read_bytes()
        for tensor in read_layout(path).tensors:
            found[tensor.name] = (tensor.dtype, tensor.shape, content[tensor.start : tensor.end])
    return found


def model_tensors(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return raw_tensors(*(file.path for file in read_model(folder)))


def values(tensor: tuple[str, tuple[int, ...], bytes]) -> "np.ndarray[Any, Any]":
    dtype, shape, raw = tensor
    assert dtype in ITEM_BYTES
    return as_floats(np.frombuffer(raw, np.uint8), dtype, shape)
