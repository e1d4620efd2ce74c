"""What an adapter has for one tensor of the base, read from its file, and applied to blocks of its rows."""

import os
from dataclasses import dataclass

import numpy as np

from llm_assets.workers.failures import WorkerError
from llm_assets.workers.merging.adapters import Adapter
from llm_assets.workers.merging.arithmetic import (
    Bytes,
    Delta,
    Floats,
    Rounding,
    add,
    add_vector,
    as_floats,
    convert,
    delta_of,
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
    rounding: Rounding

    @classmethod
    def load(cls, adapter: Adapter, change: Change) -> "Factors":
        target = change.target
        return cls(
            adapter=adapter,
            change=change,
            delta=_delta(adapter, change),
            bias=_floats(adapter, change.added_bias) if change.added_bias else None,
            rounding=Rounding.of(target.name, target.dtype, target.shape),
        )

    def apply(self, weights: Bytes, merged: Bytes, first_row: int) -> None:
        """Writes the merged rows from `first_row` on."""
        dtype = self.change.target.dtype
        if whole := self.change.whole:
            dtype, weights = whole.dtype, self._rows(whole, merged, first_row)
        if self.delta:
            add(weights, dtype, merged, self.rounding, self.delta, first_row)
        elif self.bias is not None:
            add_vector(weights, merged, self.rounding, self.bias, self.change.scale)
        else:
            convert(weights, dtype, merged, self.rounding, first_row)

    def _rows(self, whole: Tensor, merged: Bytes, first_row: int) -> Bytes:
        """The rows of the adapter's own tensor that become `merged`."""
        target = self.change.target
        rows = merged.size // target.row_bytes if target.row_bytes else 0
        return _raw(self.adapter, whole, first_row * whole.row_bytes, rows * whole.row_bytes)


def _delta(adapter: Adapter, change: Change) -> Delta | None:
    if change.left is None or change.right is None:
        return None
    left, right = _floats(adapter, change.left), _floats(adapter, change.right)
    if change.transposed:
        left, right = right.T, left.T
    magnitude = _floats(adapter, change.magnitude) if change.magnitude else None
    return delta_of(left, right, change.scale, magnitude, by_column=change.needs_all_rows)


def _floats(adapter: Adapter, tensor: Tensor) -> Floats:
    values = as_floats(_raw(adapter, tensor, 0, tensor.size_bytes), tensor.dtype, tensor.shape)
    if not np.isfinite(values).all():
        raise WorkerError(
            f"{adapter.weights.path}: {tensor.name} holds values that are not numbers, or infinite. "
            "The training diverged; train it again."
        )
    return values


def _raw(adapter: Adapter, tensor: Tensor, start: int, size_bytes: int) -> Bytes:
    raw = np.empty(size_bytes, np.uint8)
    descriptor = os.open(adapter.weights.path, os.O_RDONLY)
    try:
        read_into(descriptor, raw.data, tensor.start + start, adapter.weights.path)
    finally:
        os.close(descriptor)
    return raw
