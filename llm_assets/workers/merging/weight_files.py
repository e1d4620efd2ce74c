"""Where each tensor lies in safetensors files, and reading bytes of them into buffers that are used again.

The format: eight bytes that give the length of a JSON header, the header (dtype, shape and place of
each tensor), then the data, without gaps (https://huggingface.co/docs/safetensors#format). Nothing is
mapped into memory, so resident memory is what the buffers hold.
"""

import json
import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_assets.workers.failures import WorkerError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
LENGTH_BYTES = 8
LONGEST_HEADER_BYTES = 100_000_000  # the limit of the safetensors library itself
ITEM_BYTES = {"BF16": 2, "F16": 2, "F32": 4}  # what can be merged; other types are only copied


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One tensor of a file; `start` and `end` are bytes from the beginning of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def size_bytes(self) -> int:
        return self.end - self.start

    @property
    def row_bytes(self) -> int:
        """Bytes of one index of the first dimension; of all where there is none."""
        return self.size_bytes // self.shape[0] if self.shape and self.shape[0] else self.size_bytes

    def __str__(self) -> str:
        return f"{self.name} ({self.dtype} {list(self.shape)})"


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """A safetensors file and its tensors, in the order of their data."""

    path: Path
    size_bytes: int
    data_start: int
    tensors: tuple[Tensor, ...]


def read_layout(path: Path) -> WeightFile:
    """The layout of one file.

    Raises:
        WorkerError: It is missing, truncated, has gaps, or is no safetensors file.
    """
    try:
        with path.open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            header, data_start = _header(path, file.read(LENGTH_BYTES), file)
    except FileNotFoundError as error:
        raise WorkerError(f"{path} is missing. Fetch or train it again.") from error
    said = [(name, each) for name, each in header.items() if name != "__metadata__"]
    tensors = sorted((_tensor(path, name, each, data_start) for name, each in said), key=_place)
    end = data_start
    for tensor in tensors:
        if tensor.start != end:
            raise _broken(path, f"the data of {tensor.name} starts at byte {tensor.start} and not at {end}")
        end = tensor.end
    if end != size_bytes:
        raise _broken(path, f"its header announces {end} bytes, and it has {size_bytes}")
    return WeightFile(path=path, size_bytes=size_bytes, data_start=data_start, tensors=tuple(tensors))


def read_model(folder: Path) -> tuple[WeightFile, ...]:
    """The weight files of a model's folder: those that its index lists, or `model.safetensors`.

    Raises:
        WorkerError: A file is missing or broken, or holds other tensors than the index says.
    """
    if not (folder / INDEX).is_file():
        return (read_layout(folder / SINGLE),)
    places = _places(folder / INDEX)
    files = tuple(read_layout(folder / name) for name in sorted(set(places.values())))
    found = {tensor.name: file.path.name for file in files for tensor in file.tensors}
    for name in sorted(places.keys() | found.keys()):
        if places.get(name) != found.get(name):
            raise _broken(
                folder / INDEX, f"it puts {name} into {places.get(name)}, and it is in {found.get(name)}"
            )
    return files


def header_of(tensor: Tensor) -> bytes:
    """The beginning of a file that holds this tensor alone; padded, so that its data lie aligned."""
    said = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [0, tensor.size_bytes]}
    text = json.dumps({"__metadata__": {"format": "pt"}, tensor.name: said}).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)
    return struct.pack("<Q", len(text)) + text


def read_into(descriptor: int, buffer: memoryview, offset: int, path: Path) -> None:
    """Fills the whole buffer from the file at `offset`."""
    done = 0
    while done < len(buffer):
        count = os.preadv(descriptor, [buffer[done:]], offset + done)
        if count == 0:
            raise _broken(path, f"it ended at byte {offset + done} while it was read")
        done += count


def write_from(descriptor: int, buffer: memoryview, offset: int) -> None:
    """Writes the whole buffer to the file at `offset`."""
    done = 0
    while done < len(buffer):
        done += os.pwrite(descriptor, buffer[done:], offset + done)


def _header(path: Path, length_bytes: bytes, file: Any) -> tuple[dict[str, object], int]:
    if len(length_bytes) < LENGTH_BYTES:
        raise _broken(path, "it has not even a header")
    length = int(struct.unpack("<Q", length_bytes)[0])
    if length > LONGEST_HEADER_BYTES:
        raise _broken(path, f"its header would have {length} bytes")
    text = file.read(length)
    try:
        header = json.loads(text) if len(text) == length else None
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"its header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise _broken(path, "its header is truncated or no JSON object")
    return header, LENGTH_BYTES + length


def _tensor(path: Path, name: str, said: Any, data_start: int) -> Tensor:
    try:
        start, end = (data_start + int(offset) for offset in said["data_offsets"])
        shape, dtype = tuple(int(size) for size in said["shape"]), str(said["dtype"])
    except (KeyError, TypeError, ValueError) as error:
        raise _broken(path, f"its header says nothing usable of {name} ({error!r})") from error
    tensor = Tensor(name=name, dtype=dtype, shape=shape, start=start, end=end)
    if dtype in ITEM_BYTES and tensor.size_bytes != math.prod(shape) * ITEM_BYTES[dtype]:
        raise _broken(path, f"{name} has {tensor.size_bytes} bytes, which is not its shape {list(shape)}")
    return tensor


def _place(tensor: Tensor) -> tuple[int, int]:
    return tensor.start, tensor.end


def _places(index: Path) -> dict[str, str]:
    try:
        places = json.loads(index.read_bytes())["weight_map"]
        named = {str(name): str(file) for name, file in places.items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _broken(index, f"it has no weight_map of tensors and files ({error!r})") from error
    for file in named.values():
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise _broken(index, f"it names {file!r}, which is no safetensors file beside it")
    return named


def _broken(path: Path, why: str) -> WorkerError:
    return WorkerError(f"{path} is not whole: {why}. Fetch or train it again.")
