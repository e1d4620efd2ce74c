"""What an adapter has for one tensor of the base, read from its file, and applied to blocks of its rows."""

import os
from dataclasses import dataclass

import numpy as np

from llm_assets.workers.merging.adapters import Adapter
from llm_assets.workers.merging.arithmetic import (
    Bytes,
    Delta,
    Floats,
    add,
    add_vector,
    as_floats,
    convert,
    folded,
)
from llm_assets.workers.merging.changes import Change
from llm_assets.workers.merging.weight_files import Tensor, read_into


@dataclass(frozen=True, kw_only=True)
class Factors:
    """A change with its small tensors in memory; a tensor that replaces another is read by rows."""

    adapter: Adapter
    change: Change
    delta: Delta | None
    bias: Floats | None

    @classmethod
    def load(cls, adapter: Adapter, change: Change) -> "Factors":
        bias = _floats(adapter, change.added_bias) if change.added_bias else None
        return cls(adapter=adapter, change=change, delta=_delta(adapter, change), bias=bias)

    def apply(self, weights: Bytes, merged: Bytes, first_row: int) -> float:
        """Writes the merged rows from `first_row` on; the largest absolute error of rounding."""
        target = self.change.target
        error = 0.0
        if self.change.whole:
            error = self._replace(self.change.whole, merged, first_row)
            weights = merged
        if self.delta:
            return add(weights, merged, target.dtype, self.delta, first_row, target.name)
        if self.bias is not None:
            return add_vector(weights, merged, target.dtype, self.bias, self.change.scale, target.name)
        return error

    def _replace(self, whole: Tensor, merged: Bytes, first_row: int) -> float:
        target = self.change.target
        rows = merged.size // target.row_bytes if target.row_bytes else 0
        raw = _raw(self.adapter, whole, first_row * whole.row_bytes, rows * whole.row_bytes)
        return convert(raw, whole.dtype, merged, target.dtype, target.name)


def _delta(adapter: Adapter, change: Change) -> Delta | None:
    if change.left is None or change.right is None:
        return None
    left, right = _floats(adapter, change.left), _floats(adapter, change.right)
    if change.transposed:
        left, right = np.ascontiguousarray(right.T), np.ascontiguousarray(left.T)
    left, scale = folded(left, change.scale)
    return Delta(
        left=left,
        right=right,
        scale=scale,
        magnitude=_floats(adapter, change.magnitude) if change.magnitude else None,
        by_column=change.needs_all_rows,
    )


def _floats(adapter: Adapter, tensor: Tensor) -> Floats:
    return as_floats(_raw(adapter, tensor, 0, tensor.size_bytes), tensor.dtype, tensor.shape)


def _raw(adapter: Adapter, tensor: Tensor, start: int, size_bytes: int) -> Bytes:
    raw = np.empty(size_bytes, np.uint8)
    descriptor = os.open(adapter.weights.path, os.O_RDONLY)
    try:
        read_into(descriptor, raw.data, tensor.start + start, adapter.weights.path)
    finally:
        os.close(descriptor)
    return raw
