"""Checks safetensors files without loading a tensor: that each is whole, and which tensors it holds.

The format: eight bytes that give the length of a JSON header, the header (dtype, shape and place of each
tensor), then the data, without gaps (https://huggingface.co/docs/safetensors#format).
"""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resources.base_models.error import BaseModelSourceError
from resources.base_models.small_files import read_object

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
LENGTH_BYTES = 8
LONGEST_HEADER_BYTES = 32 << 20  # of 200,000 tensors; read, it takes thirty times as much memory
MOST_DIMENSIONS = 16
BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """What a header says of one tensor; `start` and `end` are bytes from the beginning of the data."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def read_tensors(path: Path) -> tuple[Tensor, ...]:
    """The tensors of one file, in the order of their data.

    Raises:
        BaseModelSourceError: The file is truncated, has gaps, holds no tensor, or is not safetensors at all.
    """
    size = path.stat().st_size
    header, data_bytes = _header(path, size)
    tensors = sorted(
        (_tensor(path, name, said) for name, said in header.items() if name != "__metadata__"),
        key=lambda tensor: (tensor.start, tensor.end),
    )
    if not tensors:
        raise _broken(path, "it holds no tensor")
    end = 0
    for tensor in tensors:
        if tensor.start != end:
            raise _broken(path, f"the data of {tensor.name} starts at byte {tensor.start} and not at {end}")
        end = tensor.end
    if end != data_bytes:
        what = "it is truncated" if data_bytes < end else "something follows its tensors"
        raise _broken(path, f"its header announces {end} bytes of tensors, {data_bytes} are there: {what}")
    return tuple(tensors)


def read_folder(folder: Path) -> tuple[Tensor, ...]:
    """The tensors of a model's folder: of the shards that its index lists, or of `model.safetensors`.

    Raises:
        BaseModelSourceError: A shard is missing or broken, or holds other tensors than the index says.
    """
    if not (folder / INDEX).exists():
        if not (folder / SINGLE).exists():
            raise BaseModelSourceError(_no_weights(folder))
        return read_tensors(folder / SINGLE)
    places = _places(folder / INDEX)
    tensors: list[Tensor] = []
    for shard in sorted(set(places.values())):
        if not (folder / shard).is_file():
            raise BaseModelSourceError(
                f"{folder} lacks {shard}, which {INDEX} lists; fetch the folder again."
            )
        tensors += read_tensors(folder / shard)
        lost = {name for name, place in places.items() if place == shard} - {
            tensor.name for tensor in tensors
        }
        if lost:
            raise _broken(folder / shard, f"{INDEX} says that it holds {min(lost)}, and it does not")
    return tuple(tensors)


def _header(path: Path, size: int) -> tuple[dict[str, object], int]:
    with path.open("rb") as file:
        start = file.read(LENGTH_BYTES)
        if len(start) < LENGTH_BYTES:
            raise _broken(path, f"it has {size} bytes, not even a header")
        length = int(struct.unpack("<Q", start)[0])
        if length > LONGEST_HEADER_BYTES:
            raise BaseModelSourceError(
                f"{path} is not a safetensors file: its header would have {length:,} bytes, and no "
                f"model's has more than {LONGEST_HEADER_BYTES:,}. Give weights saved as safetensors."
            )
        text = file.read(length)
    if len(text) < length:
        raise _broken(path, f"its header should have {length} bytes and has {len(text)}: it is truncated")
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"its header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise _broken(path, "its header is not a JSON object")
    return header, size - LENGTH_BYTES - length


def _tensor(path: Path, name: str, said: Any) -> Tensor:
    try:
        start, end = (int(offset) for offset in said["data_offsets"])
        tensor = Tensor(
            name=name, dtype=str(said["dtype"]), shape=tuple(map(int, said["shape"])), start=start, end=end
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _broken(path, f"its header says nothing usable of {name[:200]} ({error!r})") from error
    if len(tensor.shape) > MOST_DIMENSIONS or min((start, end, *tensor.shape)) < 0:
        raise _broken(path, f"its header gives {name[:200]} a shape or place that no tensor has")
    bits = BITS.get(tensor.dtype)
    if bits is None:
        raise _broken(path, f"{name} has the unknown type {tensor.dtype}")
    if (tensor.end - tensor.start) * 8 != tensor.elements * bits:
        raise _broken(path, f"{name} has {end - start} bytes, which is not its shape {list(tensor.shape)}")
    return tensor


def _places(index: Path) -> dict[str, str]:
    try:
        places: Any = read_object(index)["weight_map"]
        return {str(name): _plain_name(index, str(shard)) for name, shard in places.items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _broken(index, f"it has no weight_map of tensors and shards ({error!r})") from error


def _plain_name(index: Path, shard: str) -> str:
    if Path(shard).name != shard or not shard.endswith(".safetensors"):
        raise _broken(index, f"it names the shard {shard!r}, which is no safetensors file beside it")
    return shard


def _no_weights(folder: Path) -> str:
    found = sorted(path.name for path in folder.glob("*.safetensors"))
    if "adapter_model.safetensors" in found:
        return f"{folder} holds an adapter and no base model; give the folder of the model it was trained on."
    lacks = f"{folder} has neither {SINGLE} nor {INDEX}"
    return (
        f"{lacks}, but {', '.join(found)}; save the model anew." if found else f"{lacks}; give its weights."
    )


def _broken(path: Path, why: str) -> BaseModelSourceError:
    return BaseModelSourceError(f"{path} is not a whole safetensors file: {why}; fetch it again.")
