"""The arithmetic of a merge, on tiles of a matrix: summed in float64, then rounded to the tensor's type.

    merged = round(W + scale * left @ right)

**The same bytes on every processor.** What BLAS multiplies is not: its kernels add up in different orders,
so the last bits differ. They cannot where every partial sum is exact. So each row of `left` and each column
of `right` is first held to a grid: to as many bits below its greatest value as leave room for the products
and their sum in a float64's 53 (the error-free products of Ozaki et al., doi 10.1007/s11075-011-9478-1). With
rank 16 these are 25 and 24 bits, as many as a float32 has. Everything else is one operation of IEEE 754 a
value, which no processor may round differently. DoRA divides by the norm of W + delta as PEFT does (arXiv
2402.09353, equation 5); its squares are summed on a grid too.

**bfloat16 is rounded at random**, up with the probability that makes it right on average. The base's weights
are bfloat16, and most of what a gentle training adds to one is less than half of its last bit: rounded to
nearest, it would be lost (docs/decisions/2026-11-30-rounding-at-random.md). The random numbers come from the
tensor's name, so that the same merge gives the same bytes. float16 and float32 are rounded to nearest.

numpy, because it is imported in a tenth of torch's time and memory. It has no bfloat16: a bfloat16 is the
upper half of a float32. Tiles fit into a core's cache.
"""

import hashlib
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_assets.workers.failures import WorkerError

TILE_ELEMENTS = 1 << 16
EXACT_BITS = 53  # integers up to 2**53 are exact in float64
_quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")  # such values are found and refused

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Bytes = NDArray[np.uint8]
Words = NDArray[np.uint32]
Stored = NDArray[Any]  # weights as they lie in a file, as unsigned integers
Tile = tuple[slice, slice]


@dataclass(frozen=True, kw_only=True)
class _Type:
    """How a type is stored: in what integers, and what infinity and minus infinity are among them."""

    integer: type[np.unsignedinteger[Any]]
    signed: type[np.signedinteger[Any]]
    infinity: int
    minus_infinity: int


_TYPES = {
    "BF16": _Type(integer=np.uint16, signed=np.int16, infinity=0x7F80, minus_infinity=0xFF80),
    "F16": _Type(integer=np.uint16, signed=np.int16, infinity=0x7C00, minus_infinity=0xFC00),
    "F32": _Type(integer=np.uint32, signed=np.int32, infinity=0x7F80_0000, minus_infinity=0xFF80_0000),
}
_FLOATS = {"F16": np.float16, "F32": np.float32}


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """How a merged tensor is rounded: to its type, and at random by a number for each row and each column.

    The sum of the two is a weight's own random number. Any two weights' numbers are independent.
    """

    name: str
    dtype: str
    rows: NDArray[np.uint16]
    columns: NDArray[np.uint16]

    @classmethod
    def of(cls, name: str, dtype: str, shape: tuple[int, ...]) -> "Rounding":
        rows = shape[0] if len(shape) > 1 else 1
        columns = math.prod(shape[1:] if len(shape) > 1 else shape)
        drawn = hashlib.shake_128(name.encode()).digest(2 * (rows + columns))
        numbers = np.frombuffer(drawn, "<u2").astype(np.uint16)
        return cls(name=name, dtype=dtype, rows=numbers[:rows], columns=numbers[rows:])


@dataclass(frozen=True, kw_only=True)
class Delta:
    """What is added to one tensor of shape (rows, columns): `left` (rows, r) @ `right` (r, columns).

    With a `magnitude` (DoRA) the sum is scaled to it: along each row, or, where the tensor is stored
    transposed, along each column. Made by `delta_of`, so that the product is exact.
    """

    left: Doubles
    right: Doubles
    magnitude: Doubles | None = None
    by_column: bool = False


def delta_of(
    left: Floats, right: Floats, scale: float, magnitude: Floats | None = None, *, by_column: bool = False
) -> Delta:
    """The factors on grids that make their product, `scale` included, exact in float64."""
    bits = EXACT_BITS - math.ceil(math.log2(max(left.shape[1], 1)))
    return Delta(
        left=_on_grid(left * np.float64(scale), bits - bits // 2, axis=1),
        right=_on_grid(right.astype(np.float64), bits // 2, axis=0),
        magnitude=None if magnitude is None else magnitude.astype(np.float64),
        by_column=by_column,
    )


class _Scratch(threading.local):
    """Each thread's own buffers, used again for every tile."""

    def __init__(self) -> None:
        self._size = 0

    def of(self, shape: tuple[int, ...]) -> tuple[Doubles, Words, Words]:
        count = math.prod(shape)
        if self._size < count:
            self._size = count
            self._total = np.empty(count, np.float64)
            self._words, self._others = np.empty(count, np.uint32), np.empty(count, np.uint32)
        words, others = (each[:count].reshape(shape) for each in (self._words, self._others))
        return self._total[:count].reshape(shape), words, others


_scratch = _Scratch()


@_quiet
def add(weights: Bytes, dtype: str, merged: Bytes, rounding: Rounding, delta: Delta, first_row: int) -> None:
    """Writes weights + delta for the rows from `first_row` on.

    `weights` (of type `dtype`) and `merged` are the bytes of whole rows. A delta `by_column` takes all
    rows at once.

    Raises:
        WorkerError: A merged weight is not a number, or not within the range of the type.
    """
    before, after = _matrix(weights, dtype, rounding), _matrix(merged, rounding.dtype, rounding)
    for tile in _tiles(before.shape, by_column=delta.by_column):
        rows, columns = slice(first_row + tile[0].start, first_row + tile[0].stop), tile[1]
        total, words, others = _scratch.of(before[tile].shape)
        widened = _widened(before[tile], dtype, others)
        np.matmul(delta.left[rows], delta.right[:, columns], out=total)
        if delta.magnitude is not None:
            np.add(total, widened, out=total)
            along = delta.magnitude[columns if delta.by_column else rows]
            _to_magnitude(total, along, axis=0 if delta.by_column else 1)
            _round(total, after[tile], rounding, rows, columns)
        elif rounding.dtype == "BF16":  # what follows keeps as many bits as float32 has, which is faster
            single = words.view(np.float32)
            np.copyto(single, total, casting="same_kind")
            np.add(single, widened, out=single)
            _round(single, after[tile], rounding, rows, columns)
        else:
            np.add(total, widened, out=total)
            _round(total, after[tile], rounding, rows, columns)


@_quiet
def add_vector(weights: Bytes, merged: Bytes, rounding: Rounding, delta: Floats, scale: float) -> None:
    """A bias and what `lora_bias` adds to it."""
    before, after = (_matrix(each, rounding.dtype, rounding) for each in (weights, merged))
    total, _, others = _scratch.of(before.shape)
    np.multiply(delta, np.float64(scale), out=total[0])
    np.add(total, _widened(before, rounding.dtype, others), out=total)
    _round(total, after, rounding, slice(0, 1), slice(0, delta.size))


@_quiet
def convert(weights: Bytes, dtype: str, merged: Bytes, rounding: Rounding, first_row: int) -> None:
    """Rounds values of type `dtype` to another, for the rows from `first_row` on."""
    if dtype == rounding.dtype:
        np.copyto(merged, weights)
        return
    before, after = _matrix(weights, dtype, rounding), _matrix(merged, rounding.dtype, rounding)
    for tile in _tiles(before.shape, by_column=False):
        rows = slice(first_row + tile[0].start, first_row + tile[0].stop)
        total, _, others = _scratch.of(before[tile].shape)
        np.copyto(total, _widened(before[tile], dtype, others))
        _round(total, after[tile], rounding, rows, tile[1])


def as_floats(raw: Bytes, dtype: str, shape: tuple[int, ...]) -> Floats:
    """The values of a tensor's bytes, in memory of their own."""
    stored = raw.view(_TYPES[dtype].integer)
    values = np.empty(stored.size, np.float32)
    np.copyto(values, _widened(stored, dtype, np.empty(stored.size, np.uint32)))
    return values.reshape(shape)


def _on_grid(values: Doubles, bits: int, axis: int) -> Doubles:
    """Along `axis`, the nearest multiples of 2**-bits of a power of two that none of the values reaches."""
    _, exponent = np.frexp(np.abs(values).max(axis=axis, keepdims=True, initial=0.0))
    step = np.ldexp(1.0, exponent - bits)
    return np.ascontiguousarray(np.rint(values / step) * step)


def _matrix(raw: Bytes, dtype: str, rounding: Rounding) -> Stored:
    return raw.view(_TYPES[dtype].integer).reshape(-1, rounding.columns.size)


def _tiles(shape: tuple[int, ...], *, by_column: bool) -> Iterator[Tile]:
    """Stretches of whole rows, or of whole columns."""
    rows, columns = shape
    at_once = max(1, TILE_ELEMENTS // max(rows if by_column else columns, 1))
    for start in range(0, columns if by_column else rows, at_once):
        if by_column:
            yield slice(0, rows), slice(start, min(start + at_once, columns))
        else:
            yield slice(start, min(start + at_once, rows)), slice(0, columns)


def _widened(stored: Stored, dtype: str, words: Words) -> NDArray[Any]:
    """The values as numpy can add them. A bfloat16 is the upper half of its float32."""
    if dtype != "BF16":
        return stored.view(_FLOATS[dtype])
    np.copyto(words, stored)
    np.left_shift(words, 16, out=words)
    return words.view(np.float32)


def _to_magnitude(total: Doubles, magnitude: Doubles, axis: int) -> None:
    squares = np.square(total)
    _, exponent = np.frexp(squares.max(axis=axis, keepdims=True, initial=0.0))
    step = np.ldexp(1.0, exponent - EXACT_BITS + math.ceil(math.log2(max(total.shape[axis], 1))))
    norm = np.sqrt(np.rint(squares / step).sum(axis=axis, keepdims=True) * step)
    np.multiply(total, np.expand_dims(magnitude, axis) / norm, out=total)


def _round(total: Doubles | Floats, merged: Stored, rounding: Rounding, rows: slice, columns: slice) -> None:
    """Rounds `total` into `merged`. A zero loses its sign, which for a sum of zeros depends on the kernel.

    Raises:
        WorkerError: A value is not finite.
    """
    kind = _TYPES[rounding.dtype]
    if rounding.dtype == "BF16":
        _round_at_random(total, merged, rounding.rows[rows, None], rounding.columns[None, columns])
    else:
        np.copyto(merged.view(_FLOATS[rounding.dtype]), total, casting="same_kind")
    signed = merged.view(kind.signed)
    if signed.min(initial=0) == np.iinfo(kind.signed).min:  # minus zero
        signed[signed == np.iinfo(kind.signed).min] = 0
    if signed.max(initial=0) >= kind.infinity or merged.max(initial=0) >= kind.minus_infinity:
        raise WorkerError(
            f"The merged {rounding.name} would hold values that {rounding.dtype} cannot (not a number, or "
            "too large). The adapter is broken or its scale is wrong; train it again."
        )


def _round_at_random(
    total: Doubles | Floats, merged: Stored, row: NDArray[np.uint16], column: NDArray[np.uint16]
) -> None:
    """A random number is added below the last bit that stays, and what is below it is cut off.

    What bfloat16 holds exactly stays as it is.
    """
    _, words, others = _scratch.of(merged.shape)
    if total.dtype == np.float64:
        np.copyto(words.view(np.float32), total, casting="same_kind")
    else:
        words = total.view(np.uint32)
    np.copyto(others, row + column)  # the sum of two uint16 wraps around
    np.add(words, others, out=words)
    np.right_shift(words, 16, out=words)
    np.copyto(merged, words, casting="unsafe")
