"""Checks a GGUF file without loading a tensor: that it is whole, and what model it holds.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Versions 2 and 3, little-endian.
"""

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from resources.base_models.error import BaseModelSourceError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
USUAL_ALIGNMENT = 32
MOST_DIMENSIONS = 4
MOST_HEADER_BYTES = 256 << 20  # a vocabulary of 250,000 words has a tenth of it
MOST_VALUES = MOST_TENSORS = 100_000
MOST_TEXTS = 10_000_000  # in lists
LONGEST_TEXT_BYTES = 16 << 20
STRING, ARRAY = 8, 9
SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
# Elements and bytes of a block of each tensor type: GGML_QUANT_SIZES of ggml's own `gguf` package.
# fmt: off
BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110),
    22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8),
    29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18),
}
# fmt: on


@dataclass(frozen=True, kw_only=True)
class GgufFacts:
    """What a GGUF file says of its model."""

    architecture: str
    parameters: int
    tensors: int
    size_bytes: int
    name: str | None
    licence: str | None


@dataclass(frozen=True, kw_only=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    type: int
    offset: int


def read_gguf(path: Path) -> GgufFacts:
    """The facts of the file, once every tensor is known to lie within it.

    Raises:
        BaseModelSourceError: The file is truncated or is not GGUF.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        reader = _Reader(path, file, size)
        if file.read(len(MAGIC)) != MAGIC:
            raise BaseModelSourceError(f"{path} is not a GGUF file: it does not start with {MAGIC.decode()}.")
        version = reader.scalar("<I")
        if version not in VERSIONS:
            known = f"version {version}; versions {VERSIONS[0]} and {VERSIONS[1]}, little-endian, can be read"
            raise BaseModelSourceError(f"{path} is GGUF of {known}. Convert the model anew.")
        tensor_count, value_count = reader.scalar("<Q"), reader.scalar("<Q")
        if value_count > MOST_VALUES or tensor_count > MOST_TENSORS:
            counted = f"its header announces {value_count:,} values and {tensor_count:,} tensors"
            raise _broken(path, f"{counted}, and no model has more than {MOST_TENSORS:,}")
        values = dict(reader.pair() for _ in range(value_count))
        tensors = [reader.tensor() for _ in range(tensor_count)]
        data_start = _aligned(file.tell(), _alignment(path, values))
    end = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        if tensor.offset < end:
            raise _broken(
                path, f"{tensor.name} begins at byte {tensor.offset} of the data, within another tensor"
            )
        end = tensor.offset + _bytes_of(path, tensor)
        if data_start + end > size:
            raise _broken(
                path, f"{tensor.name} ends at byte {data_start + end}, the file at {size}: it is truncated"
            )
    return _facts(path, values, tensors, size)


class _Reader:
    """Reads the header's values, each time making sure that the file goes on that far."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self._path, self._file, self._size = path, file, size
        self._texts = 0

    def scalar(self, form: str) -> Any:
        return struct.unpack(form, self._bytes(struct.calcsize(form)))[0]

    def string(self) -> str:
        count = self.scalar("<Q")
        if count > LONGEST_TEXT_BYTES:
            problem = (
                f"its header holds a text of {count:,} bytes, and at most {LONGEST_TEXT_BYTES:,} are read"
            )
            raise _broken(self._path, problem)
        return self._bytes(count).decode(errors="replace")

    def pair(self) -> tuple[str, Any]:
        return self.string(), self._value(self.scalar("<I"))

    def tensor(self) -> _Tensor:
        name, dimensions = self.string(), self.scalar("<I")
        if not 0 <= dimensions <= MOST_DIMENSIONS:
            raise _broken(self._path, f"its header gives {name!r} {dimensions} dimensions")
        shape = tuple(self.scalar("<Q") for _ in range(dimensions))
        return _Tensor(name=name, shape=shape, type=self.scalar("<I"), offset=self.scalar("<Q"))

    def _value(self, kind: int, *, depth: int = 0) -> Any:
        if kind == STRING:
            return self.string()
        if kind == ARRAY and depth < MOST_DIMENSIONS:
            return self._array(depth)
        if kind in SCALARS:
            return self.scalar(SCALARS[kind])
        raise _broken(self._path, f"its header holds a value of the unknown type {kind}")

    def _array(self, depth: int) -> int:
        """Passes over an array (a vocabulary, mostly) and returns its length."""
        kind, length = self.scalar("<I"), int(self.scalar("<Q"))
        if kind in SCALARS:
            self._skip(length * struct.calcsize(SCALARS[kind]))
            return length
        pass_over: Callable[[], object] = (
            (lambda: self._skip(self.scalar("<Q")))
            if kind == STRING
            else lambda: self._value(kind, depth=depth + 1)
        )
        self._texts += length
        if self._texts > MOST_TEXTS:
            problem = f"its header holds lists of {self._texts:,} values"
            raise _broken(self._path, f"{problem}, and no model's has more than {MOST_TEXTS:,}")
        for _ in range(length):
            pass_over()
        return length

    def _bytes(self, count: int) -> bytes:
        self._refuse_short(count)
        return self._file.read(count)

    def _skip(self, count: int) -> None:
        self._refuse_short(count)
        self._file.seek(count, 1)

    def _refuse_short(self, count: int) -> None:
        if self._file.tell() + count > self._size:
            raise _broken(
                self._path, f"its header goes on after its end at byte {self._size}: it is truncated"
            )
        if self._file.tell() + count > MOST_HEADER_BYTES:
            raise _broken(
                self._path, f"its header has more than {MOST_HEADER_BYTES:,} bytes, no model's so many"
            )


def _alignment(path: Path, values: dict[str, object]) -> int:
    alignment = values.get("general.alignment", USUAL_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise _broken(path, f"its header gives the alignment {alignment!r}")
    return alignment


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


def _bytes_of(path: Path, tensor: _Tensor) -> int:
    if tensor.type not in BLOCKS:
        raise _broken(path, f"{tensor.name} has the unknown tensor type {tensor.type}")
    elements, block_bytes = BLOCKS[tensor.type]
    return -(-math.prod(tensor.shape) // elements) * block_bytes


def _facts(path: Path, values: dict[str, object], tensors: list[_Tensor], size: int) -> GgufFacts:
    architecture = values.get("general.architecture")
    if not isinstance(architecture, str) or not tensors:
        raise _broken(path, "it names no architecture or holds no tensor")
    return GgufFacts(
        architecture=architecture,
        parameters=sum(math.prod(tensor.shape) for tensor in tensors),
        tensors=len(tensors),
        size_bytes=size,
        name=_text(values, "general.name"),
        licence=_text(values, "general.license"),
    )


def _text(values: dict[str, object], key: str) -> str | None:
    value = values.get(key)
    return value if isinstance(value, str) and value else None


def _broken(path: Path, why: str) -> BaseModelSourceError:
    return BaseModelSourceError(f"{path} is not a whole GGUF file: {why}; fetch it again.")
