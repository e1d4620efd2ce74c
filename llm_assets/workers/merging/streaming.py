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
from llm_assets.workers.merging.weight_files import (
    Tensor,
    WeightFile,
    header_of,
    read_into,
    write_from,
)

BLOCK_BYTES = 4 << 20
LARGEST_KEPT_BYTES = 2 * BLOCK_BYTES
READ_AHEAD_BYTES = 4 * BLOCK_BYTES
BLOCKS_AHEAD = 3  # beyond one for each computing thread: being read, hashed, written
Buffer = np.ndarray[Any, np.dtype[np.uint8]]
Said = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Target:
    """One merged model that is being written; `renamed` are files that are called otherwise in the base."""

    folder: Path
    changes: Changes
    journal: Journal
    renamed: Mapping[str, str]

    def name_of(self, file: WeightFile) -> str:
        return self.renamed.get(file.path.name, file.path.name)


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
    """A file on its way: hashed and written by one thread, in order, `shift` bytes from the base's place."""

    target: Target
    name: str
    descriptor: int
    writer: ThreadPoolExecutor
    shift: int = 0
    size_bytes: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def write(self, merged: "Future[Buffer]", block: Block) -> None:
        buffer = merged.result()
        self.put(buffer.data, block.start + self.shift)

    def put(self, data: memoryview, offset: int) -> None:
        self.digest.update(data)
        write_from(self.descriptor, data, offset)
        self.size_bytes += len(data)


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
            outputs = [_opened(target, target.name_of(file), open_files) for target in targets]
            expected = self._expected.get(file.path.name)
            digest = hashlib.sha256() if expected else None
            blocks = _blocks(file, [target.changes for target in targets])
            self._stream(blocks, file.path, source, outputs, digest, done)
            if digest:
                check_sha256(file.path, expected, digest.hexdigest())
        return [_finished(output) for output in outputs]

    def add(self, tensor: Tensor, path: Path, target: Target, name: str, done: Said) -> Written:
        """Writes a file of one tensor, whose bytes are in the base's file at `path` under another name."""
        with ExitStack() as open_files:
            source = os.open(path, os.O_RDONLY)
            open_files.callback(os.close, source)
            header = header_of(tensor)
            output = _opened(target, name, open_files, shift=len(header) - tensor.start)
            output.put(memoryview(header), 0)
            change = target.changes.by_target.get(tensor.name)
            blocks = _rows(tensor, [change]) if change else _plain(tensor.start, tensor.end)
            self._stream(blocks, path, source, [output], None, done)
        return _finished(output)

    def _stream(
        self,
        blocks: Iterator[Block],
        path: Path,
        source: int,
        outputs: Sequence[_Output],
        digest: Any,
        done: Said,
    ) -> None:
        free: queue.SimpleQueue[list[Buffer]] = queue.SimpleQueue()
        for _ in range(self._blocks):
            free.put([np.empty(0, np.uint8)] * (1 + len(outputs)))
        pending: list[Future[None]] = []
        factors: dict[int, Factors] = {}
        for block in blocks:
            buffers = free.get()
            raw = _of_size(buffers, 0, block.size_bytes)
            os.posix_fadvise(source, block.end, READ_AHEAD_BYTES, os.POSIX_FADV_WILLNEED)
            read_into(source, raw.data, block.start, path)
            if digest:
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

    def _merged(
        self,
        block: Block,
        output: _Output,
        raw: Buffer,
        buffers: list[Buffer],
        number: int,
        factors: dict[int, Factors],
    ) -> "Future[Buffer]":
        change = output.target.changes.by_target.get(block.tensor.name) if block.tensor else None
        if change is None:
            same: Future[Buffer] = Future()
            same.set_result(raw)
            return same
        loaded = factors.get(number)
        if loaded is None or loaded.change is not change:
            loaded = factors[number] = Factors.load(output.target.changes.adapter, change)
        result = _of_size(buffers, number, block.size_bytes)
        return self._compute.submit(_apply, loaded, block, raw, result)


def _apply(factors: Factors, block: Block, raw: Buffer, result: Buffer) -> Buffer:
    factors.apply(raw, result, block.first_row)
    return result


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
    at_once = max(1, BLOCK_BYTES // max(tensor.row_bytes, 1))
    if any(change.needs_all_rows for change in wanted) or len(tensor.shape) < 2:
        at_once = rows
    first = 0
    while first < rows:
        last = min(first + at_once, rows)
        start = tensor.start + first * tensor.row_bytes
        yield Block(start=start, end=tensor.start + last * tensor.row_bytes, tensor=tensor)
        first = last


def _opened(target: Target, name: str, open_files: ExitStack, shift: int = 0) -> _Output:
    path = target.folder / (name + UNFINISHED)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    open_files.callback(os.close, descriptor)
    writer = ThreadPoolExecutor(1, thread_name_prefix="write")
    open_files.callback(writer.shutdown, cancel_futures=True)
    return _Output(target=target, name=name, descriptor=descriptor, writer=writer, shift=shift)


def _finished(output: _Output) -> Written:
    folder, name = output.target.folder, output.name
    (folder / (name + UNFINISHED)).rename(folder / name)
    written = Written(
        path=name,
        size_bytes=output.size_bytes,
        sha256=output.digest.hexdigest(),
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
