"""The base model that is merged into, and which of its embeddings are one tensor."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from llm_assets.workers.failures import WorkerError
from llm_assets.workers.merging.weight_files import Tensor, WeightFile, read_into, read_model

CONFIG = "config.json"
INPUT_EMBEDDINGS = {"embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings"}
OUTPUT_EMBEDDINGS = {"lm_head", "embed_out"}
COMPARED_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base model's folder: its configuration and where its tensors lie."""

    folder: Path
    config: Mapping[str, object]
    files: tuple[WeightFile, ...]

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return {tensor.name: tensor for file in self.files for tensor in file.tensors}

    @cached_property
    def has_tied_embeddings(self) -> bool:
        """Whether input and output embeddings are one tensor once the model is loaded.

        The setting may be left out where it is the architecture's default: then a checkpoint without
        output embeddings, or with a copy of the input's, is taken for a tied one.
        """
        if (said := self.config.get("tie_word_embeddings")) is not None:
            return bool(said)
        one, other = self.input_embeddings, self.output_embeddings
        if one is None or other is None:
            return True
        return same_bytes(self.place_of(one.name), self.place_of(other.name))

    @property
    def input_embeddings(self) -> Tensor | None:
        return next(
            (tensor for name, tensor in self.tensors.items() if embedding_kind(name) == "input"), None
        )

    @property
    def output_embeddings(self) -> Tensor | None:
        return next(
            (tensor for name, tensor in self.tensors.items() if embedding_kind(name) == "output"), None
        )

    def place_of(self, name: str) -> tuple[Path, Tensor]:
        for file in self.files:
            for tensor in file.tensors:
                if tensor.name == name:
                    return file.path, tensor
        raise KeyError(name)


def read_base(folder: Path) -> Base:
    """The base model in `folder`.

    Raises:
        WorkerError: It is not whole, or its weights are quantized.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise WorkerError(f"{path} is missing or no JSON: {error}. Fetch the base model again.") from error
    if quantization := config.get("quantization_config"):
        method = quantization.get("quant_method", "by an unknown method")
        raise WorkerError(
            f"The base model in {folder} is quantized ({method}), and nothing can be merged into quantized "
            "weights. Take the base that it was quantized from, or `serving.mode: adapter`."
        )
    return Base(folder=folder, config=config, files=read_model(folder))


def embedding_kind(name: str) -> Literal["input", "output"] | None:
    """Which embedding a module or its weight is, if any."""
    last = name.removesuffix(".weight").rpartition(".")[2]
    if last in INPUT_EMBEDDINGS:
        return "input"
    return "output" if last in OUTPUT_EMBEDDINGS else None


def same_bytes(one: tuple[Path, Tensor], other: tuple[Path, Tensor]) -> bool:
    """Whether two tensors hold the same values."""
    (path, tensor), (other_path, other_tensor) = one, other
    if (tensor.dtype, tensor.shape) != (other_tensor.dtype, other_tensor.shape):
        return False
    with path.open("rb") as file, other_path.open("rb") as other_file:
        for start in range(0, tensor.size_bytes, COMPARED_BYTES):
            size = min(COMPARED_BYTES, tensor.size_bytes - start)
            if _part(file.fileno(), tensor, start, size, path) != _part(
                other_file.fileno(), other_tensor, start, size, other_path
            ):
                return False
    return True


def _part(descriptor: int, tensor: Tensor, start: int, size: int, path: Path) -> bytearray:
    os.posix_fadvise(descriptor, tensor.start + start, size, os.POSIX_FADV_SEQUENTIAL)
    buffer = bytearray(size)
    read_into(descriptor, memoryview(buffer), tensor.start + start, path)
    return buffer
