"""Base and adapters to merged models, block by block, in memory that does not grow with them.

One thread reads a block and hashes it, others compute, and one for each output hashes and writes, in order.
Blocks are a few megabytes of whole rows in buffers that are used again; only a tensor whose rows cannot be
split (DoRA along columns) is held whole. Names, order, sharding and headers stay the base's, so a file that
no adapter touches is the base's own and is linked, not written.
"""

import hashlib
import os
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from llm_assets.workers.merging.changes import Change, Changes
from llm_assets.workers.merging.factors import Factors
from llm_assets.workers.merging.journal import UNFINISHED, Journal, Written, check_sha256
from llm_assets.workers.merging.weight_files import Tensor, WeightFile, read_into, write_from

BLOCK_BYTES = 4 << 20
LARGEST_KEPT_BYTES = 2 * BLOCK_BYTES
READ_AHEAD_BYTES = 4 * BLOCK_BYTES
BLOCKS_AHEAD = 3  # beyond one for each computing thread: being read, hashed, written
Buffer = np.ndarray[Any, np.dtype[np.uint8]]
Said = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Target:
    """One merged model that is being written."""

    folder: Path
    changes: Changes
    journal: Journal


@dataclass(frozen=True, kw_only=True)
class Block:
    """A stretch of a file: whole rows of one tensor, or (`tensor` None) bytes that stay as they are."""

    start: int
    end: int
    tensor: Tensor | None = None

    @property
    def size_bytes(self) -> int:
        return self.end - self.start

    @property
    def first_row(self) -> int:
        assert self.tensor is not None
        return (self.start - self.tensor.start) // self.tensor.row_bytes


@dataclass(kw_only=True)
class _Output:
    """A file on its way: hashed and written by one thread, in order."""

    target: Target
    descriptor: int
    writer: ThreadPoolExecutor
    digest: Any = field(default_factory=hashlib.sha256)
    largest_error: float = 0.0
    largest_error_in: str | None = None

    def write(self, merged: "Future[tuple[Buffer, float]]", block: Block) -> None:
        buffer, error = merged.result()
        self.digest.update(buffer.data)
        write_from(self.descriptor, buffer.data, block.start)
        if error > self.largest_error and block.tensor:
            self.largest_error, self.largest_error_in = error, block.tensor.name


class Streaming:
    """Merges files of one base for several targets; each block is read once for all of them."""

    def __init__(self, expected: Mapping[str, str], threads: int) -> None:
        self._expected = expected
        self._compute = ThreadPoolExecutor(threads, thread_name_prefix="compute")
        self._blocks = threads + BLOCKS_AHEAD

    def __enter__(self) -> "Streaming":
        return self

    def __exit__(self, *_: object) -> None:
        self._compute.shutdown(cancel_futures=True)

    def merge(self, file: WeightFile, targets: Sequence[Target], done: Said) -> list[Written]:
        """Writes the merged file of each target; `done` is told of bytes as they are read.

        Raises:
            WorkerError: The base's file is damaged, or a merged value is not finite; names it.
        """
        with ExitStack() as open_files:
            source = os.open(file.path, os.O_RDONLY)
            open_files.callback(os.close, source)
            os.posix_fadvise(source, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            outputs = [_opened(file, target, open_files) for target in targets]
            sha256 = self._stream(file, source, outputs, done)
            if sha256:
                check_sha256(file.path, self._expected[file.path.name], sha256)
        return [_finished(file, output) for output in outputs]

    def _stream(self, file: WeightFile, source: int, outputs: Sequence[_Output], done: Said) -> str | None:
        digest, expected = hashlib.sha256(), file.path.name in self._expected
        free: queue.SimpleQueue[list[Buffer]] = queue.SimpleQueue()
        for _ in range(self._blocks):
            free.put([np.empty(0, np.uint8)] * (1 + len(outputs)))
        pending: list[Future[None]] = []
        factors: dict[int, Factors] = {}
        for block in _blocks(file, [output.target.changes for output in outputs]):
            buffers = free.get()
            raw = _of_size(buffers, 0, block.size_bytes)
            os.posix_fadvise(source, block.end, READ_AHEAD_BYTES, os.POSIX_FADV_WILLNEED)
            read_into(source, raw.data, block.start, file.path)
            if expected:
                digest.update(raw.data)
            writes = []
            for number, output in enumerate(outputs):
                merged = self._merged(block, output, raw, buffers, number + 1, factors)
                writes.append(output.writer.submit(output.write, merged, block))
            _free_when(writes, buffers, free)
            pending = _unfinished(pending) + writes
            done(block.size_bytes)
        for write in pending:
            write.result()
        return digest.hexdigest() if expected else None

    def _merged(
        self,
        block: Block,
        output: _Output,
        raw: Buffer,
        buffers: list[Buffer],
        number: int,
        factors: dict[int, Factors],
    ) -> "Future[tuple[Buffer, float]]":
        change = output.target.changes.by_target.get(block.tensor.name) if block.tensor else None
        if change is None:
            same: Future[tuple[Buffer, float]] = Future()
            same.set_result((raw, 0.0))
            return same
        loaded = factors.get(number)
        if loaded is None or loaded.change is not change:
            loaded = factors[number] = Factors.load(output.target.changes.adapter, change)
        result = _of_size(buffers, number, block.size_bytes)
        return self._compute.submit(_apply, loaded, block, raw, result)


def _apply(factors: Factors, block: Block, raw: Buffer, result: Buffer) -> tuple[Buffer, float]:
    return result, factors.apply(raw, result, block.first_row)


def _blocks(file: WeightFile, changes: Sequence[Changes]) -> Iterator[Block]:
    start = 0
    for tensor in file.tensors:
        wanted = [change for each in changes if (change := each.by_target.get(tensor.name))]
        if wanted:
            yield from _plain(start, tensor.start)
            yield from _rows(tensor, wanted)
            start = tensor.end
    yield from _plain(start, file.size_bytes)


def _plain(start: int, end: int) -> Iterator[Block]:
    for at in range(start, end, BLOCK_BYTES):
        yield Block(start=at, end=min(at + BLOCK_BYTES, end))


def _rows(tensor: Tensor, wanted: Sequence[Change]) -> Iterator[Block]:
    rows = tensor.shape[0] if tensor.shape else 1
    at_once = max(2, BLOCK_BYTES // max(tensor.row_bytes, 1))
    if any(change.needs_all_rows for change in wanted) or len(tensor.shape) < 2:
        at_once = rows
    first = 0
    while first < rows:
        last = rows if rows - first <= at_once + 1 else first + at_once  # never a single row at the end
        start = tensor.start + first * tensor.row_bytes
        yield Block(start=start, end=tensor.start + last * tensor.row_bytes, tensor=tensor)
        first = last


def _opened(file: WeightFile, target: Target, open_files: ExitStack) -> _Output:
    path = target.folder / (file.path.name + UNFINISHED)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    open_files.callback(os.close, descriptor)
    writer = ThreadPoolExecutor(1, thread_name_prefix="write")
    open_files.callback(writer.shutdown, cancel_futures=True)
    return _Output(target=target, descriptor=descriptor, writer=writer)


def _finished(file: WeightFile, output: _Output) -> Written:
    name = file.path.name
    (output.target.folder / (name + UNFINISHED)).rename(output.target.folder / name)
    written = Written(
        path=name,
        size_bytes=file.size_bytes,
        sha256=output.digest.hexdigest(),
        largest_error=output.largest_error,
        largest_error_in=output.largest_error_in,
    )
    output.target.journal.add(written)
    return written


def _of_size(buffers: list[Buffer], number: int, size_bytes: int) -> Buffer:
    """A buffer that is used again; a tensor that is held whole gets one of its own, which goes with it."""
    if size_bytes > LARGEST_KEPT_BYTES:
        return np.empty(size_bytes, np.uint8)
    if buffers[number].size < size_bytes:
        buffers[number] = np.empty(max(size_bytes, BLOCK_BYTES), np.uint8)
    return buffers[number][:size_bytes]


def _free_when(
    writes: Sequence["Future[None]"], buffers: list[Buffer], free: "queue.SimpleQueue[list[Buffer]]"
) -> None:
    """The buffers go back when the last of the writes is over, well or not."""
    left = queue.SimpleQueue[None]()
    for _ in writes[1:]:
        left.put(None)

    def over(_: "Future[None]") -> None:
        try:
            left.get_nowait()
        except queue.Empty:
            free.put(buffers)

    for write in writes:
        write.add_done_callback(over)


def _unfinished(writes: Sequence["Future[None]"]) -> list["Future[None]"]:
    """Those that are not done; one that failed is told at once."""
    for write in writes:
        if write.done():
            write.result()
    return [write for write in writes if not write.done()]
