"""The arithmetic of a merge, on blocks of rows: float32, rounded once to the type of the base's tensor.

    merged = (W.float() + scale * (left.float() @ right.float())).to(dtype)

numpy, because it is imported in a tenth of torch's time and memory. It has no bfloat16: a bfloat16 is the
upper half of a float32, rounded to nearest, ties to even, which is done here on the bits. Elementwise
steps go through pieces that fit into a core's cache. DoRA divides by the norm of W + delta as PEFT
does (arXiv 2402.09353, equation 5); that norm is summed in float64.
"""

import math
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_assets.workers.failures import WorkerError
from llm_assets.workers.merging.weight_files import ITEM_BYTES

CACHE_ELEMENTS = 1 << 16
_quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")  # such values are found and refused

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Bits = NDArray[np.uint32]


@dataclass(frozen=True, kw_only=True)
class Delta:
    """What is added to one tensor of shape (rows, columns).

    `left` (rows, r) @ `right` (r, columns), times `scale`. With a `magnitude` (DoRA) the sum is scaled to
    it: along each row, or, where the tensor is stored transposed, along each column.
    """

    left: Floats
    right: Floats
    scale: float
    magnitude: Floats | None = None
    by_column: bool = False


class _Scratch(threading.local):
    """Each thread's own buffers, used again for every piece: values, and their bits."""

    def __init__(self) -> None:
        self.values = np.empty(0, np.float32)
        self.bits = np.empty(0, np.uint32)

    def of(self, count: int) -> tuple[Floats, Bits]:
        if self.values.size < count:
            self.values = np.empty(count, np.float32)
            self.bits = np.empty(count, np.uint32)
        return self.values[:count], self.bits[:count]


_scratch = _Scratch()


@_quiet
def add(weights: Bytes, merged: Bytes, dtype: str, delta: Delta, first_row: int, name: str) -> float:
    """Writes weights + delta for the rows from `first_row` on; the largest absolute error of rounding.

    `weights` and `merged` are the bytes of whole rows and may be the same. A delta `by_column` takes
    all rows at once.

    Raises:
        WorkerError: A merged weight is not a number, or not within the range of the type.
    """
    columns = delta.right.shape[1]
    item = ITEM_BYTES[dtype]
    rows = weights.size // (columns * item)
    step = rows if delta.by_column else _rows_at_once(columns, rows)
    error = 0.0
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        span = slice(start * columns * item, stop * columns * item)
        total, bits = _scratch.of((stop - start) * columns)
        matrix = total.reshape(stop - start, columns)
        np.matmul(delta.left[first_row + start : first_row + stop], delta.right, out=matrix)
        if delta.scale != 1.0:
            np.multiply(total, np.float32(delta.scale), out=total)
        np.add(total, _widened(weights[span], dtype, bits), out=total)
        if delta.magnitude is not None:
            _to_magnitude(matrix, delta.magnitude, first_row + start, by_column=delta.by_column)
        error = _larger(error, _narrow(total, merged[span], dtype, bits), name, dtype)
    return error


@_quiet
def add_vector(weights: Bytes, merged: Bytes, dtype: str, delta: Floats, scale: float, name: str) -> float:
    """A bias and what `lora_bias` adds to it."""
    total, bits = _scratch.of(delta.size)
    np.multiply(delta, np.float32(scale), out=total)
    np.add(total, _widened(weights, dtype, bits), out=total)
    return _larger(0.0, _narrow(total, merged, dtype, bits), name, dtype)


@_quiet
def convert(source: Bytes, source_dtype: str, target: Bytes, target_dtype: str, name: str) -> float:
    """Rounds values to another type once; the largest absolute error."""
    if source_dtype == target_dtype:
        np.copyto(target, source)
        return 0.0
    source_item, target_item = ITEM_BYTES[source_dtype], ITEM_BYTES[target_dtype]
    count = source.size // source_item
    error = 0.0
    for start in range(0, count, CACHE_ELEMENTS):
        stop = min(start + CACHE_ELEMENTS, count)
        total, bits = _scratch.of(stop - start)
        np.copyto(total, _widened(source[start * source_item : stop * source_item], source_dtype, bits))
        part = target[start * target_item : stop * target_item]
        error = _larger(error, _narrow(total, part, target_dtype, bits), name, target_dtype)
    return error


def as_floats(raw: Bytes, dtype: str, shape: tuple[int, ...]) -> Floats:
    """The values of a tensor's bytes, in memory of their own."""
    values = np.empty(raw.size // ITEM_BYTES[dtype], np.float32)
    np.copyto(values, _widened(raw, dtype, np.empty(values.size, np.uint32)))
    return values.reshape(shape)


def folded(left: Floats, scale: float) -> tuple[Floats, float]:
    """`left` times a scale that is a power of two, which changes no product's rounding; saves a pass."""
    if math.frexp(scale)[0] != 0.5 or not 2.0**-16 <= scale <= 2.0**16:
        return left, scale
    largest = float(np.abs(left).max(initial=0.0))
    smallest = float(np.abs(left[left != 0]).min(initial=1.0))
    if largest > 2.0**64 or smallest < 2.0**-64:
        return left, scale
    return left * np.float32(scale), 1.0


def _rows_at_once(columns: int, rows: int) -> int:
    """At least two: numpy multiplies a single row by another routine, which sums in another order."""
    return min(rows, max(2, CACHE_ELEMENTS // max(columns, 1)))


def _widened(raw: Bytes, dtype: str, bits: Bits) -> NDArray[Any]:
    """The values as numpy can add them to float32. A bfloat16 is the upper half of its float32."""
    if dtype == "BF16":
        np.copyto(bits, raw.view(np.uint16))
        np.left_shift(bits, 16, out=bits)
        return bits.view(np.float32)
    return raw.view(np.float32 if dtype == "F32" else np.float16)


def _to_magnitude(total: Floats, magnitude: Floats, first_row: int, *, by_column: bool) -> None:
    norm = np.sqrt(np.square(total, dtype=np.float64).sum(axis=0 if by_column else 1)).astype(np.float32)
    if by_column:
        np.multiply(total, (magnitude / norm)[None, :], out=total)
    else:
        np.multiply(total, (magnitude[first_row : first_row + len(total)] / norm)[:, None], out=total)


def _narrow(total: Floats, merged: Bytes, dtype: str, bits: Bits) -> float:
    """Rounds `total` into `merged` and spoils it; the largest error, not finite where a value is not."""
    if dtype == "BF16":
        exact = total.view(np.uint32)
        np.right_shift(exact, 16, out=bits)
        np.bitwise_and(bits, 1, out=bits)
        np.add(bits, 0x7FFF, out=bits)
        np.add(bits, exact, out=bits)
        np.right_shift(bits, 16, out=bits)
        np.copyto(merged.view(np.uint16), bits, casting="unsafe")
        np.left_shift(bits, 16, out=bits)
        np.subtract(bits.view(np.float32), total, out=total)
    elif dtype == "F16":
        half = merged.view(np.float16)
        np.copyto(half, total, casting="same_kind")
        np.subtract(half, total, out=total)
    else:
        np.copyto(merged.view(np.float32), total)
        np.subtract(total, total, out=total)  # 0, and nan where it is not finite
    return float(np.maximum(total.max(initial=0.0), -total.min(initial=0.0)))


def _larger(error: float, found: float, name: str, dtype: str) -> float:
    if not math.isfinite(found):
        raise WorkerError(
            f"The merged {name} would hold values that {dtype} cannot (not a number, or too large). "
            "The adapter is broken or its scale is wrong; train it again."
        )
    return max(error, found)
