"""Decodes Parquet in a process of its own, whose memory is limited: a small file may unfold to any size.

`parquet_rows.py` runs this file as a script (`python -I parquet_process.py MEMORY ROW SIZE`, in bytes) with a
unix socket as standard input. By it come pairs of descriptors, a Parquet file and a pipe; into the pipe go
frames (8 bytes of length, then a pickle): lists of rows, and at last a `Fault` or None. Its only own type is
`Other`, so that whoever reads the pipe needs to allow no further one.
"""

import os
import pickle
import resource
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

BATCH_BYTES = 16 << 20
BATCH_ROWS = 1000
FRAME_BYTES = 1 << 20
LENGTH = struct.Struct("<Q")
PLAIN = (str, int, float, bool, bytes, type(None))
OTHER_TYPES = ("date", "time", "duration", "decimal", "interval", "map", "extension", "half")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Other:
    """A value of a type that JSON does not have, such as a date: only its type is told."""

    type_name: str


@dataclass(frozen=True)
class Fault:
    """Why the file is read no further than `row`, counted from 1: `memory`, `row`, `size` or `file`."""

    row: int
    kind: str
    text: str = ""


def main(memory_bytes: int, row_bytes: int, size_bytes: int) -> None:
    from pyarrow import parquet  # before the limit, of which it should take nothing

    used = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (used + memory_bytes, used + memory_bytes))
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    orders = socket.socket(fileno=0)
    while True:
        _, descriptors, _, _ = socket.recv_fds(orders, 1, 2)
        if not descriptors:
            return
        with open(descriptors[0], "rb") as file, open(descriptors[1], "wb") as pipe:  # noqa: PTH123  of descriptors
            try:
                _decode(parquet, file, pipe, row_bytes, size_bytes)
                pipe.flush()
            except BrokenPipeError:  # nobody wants more of it
                os.dup2(os.open(os.devnull, os.O_WRONLY), pipe.fileno())


def _decode(parquet: Any, file: BinaryIO, pipe: BinaryIO, row_bytes: int, size_bytes: int) -> None:
    import pyarrow

    row = total = 0
    try:
        for rows in _batches(parquet, file):
            frame = pickle.dumps(rows)
            frames = [frame] if len(frame) <= FRAME_BYTES else (pickle.dumps([each]) for each in rows)
            for each in frames:
                if len(each) > max(row_bytes, FRAME_BYTES):
                    return _send(pipe, Fault(row + 1, "row"))
                total += len(each)
                row += len(rows) if each is frame else 1
                if total > size_bytes:
                    return _send(pipe, Fault(row, "size"))
                pipe.write(LENGTH.pack(len(each)) + each)
        return _send(pipe, None)
    except MemoryError:
        return _send(pipe, Fault(row + 1, "memory"))
    except (pyarrow.ArrowException, OSError, ValueError, RecursionError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        return _send(pipe, Fault(row + 1, "file", (str(error).splitlines() or ["it is empty"])[0][:500]))


def _batches(parquet: Any, file: BinaryIO) -> Iterator[list[dict[str, object]]]:
    with parquet.ParquetFile(file) as opened:
        plain = not any(_is_other(str(field.type)) for field in opened.schema_arrow)
        for number in range(opened.metadata.num_row_groups):
            group = opened.metadata.row_group(number)
            of_row = max(1, group.total_byte_size // max(1, group.num_rows))
            batch_rows = max(1, min(BATCH_ROWS, BATCH_BYTES // of_row))
            batches = opened.iter_batches(batch_size=batch_rows, row_groups=[number], use_threads=False)
            for batch in batches:
                rows = batch.to_pylist()
                yield rows if plain else [_without_others(row) for row in rows]


def _is_other(name: str) -> bool:
    """Whether a type's values may be other than those of JSON: `list<element: timestamp[us]>`."""
    return any(word in name for word in OTHER_TYPES)


def _without_others(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_others(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_others(inner) for inner in value]
    return value if type(value) in PLAIN else Other(type(value).__name__)


def _send(pipe: BinaryIO, last: Fault | None) -> None:
    frame = pickle.dumps(last)
    pipe.write(LENGTH.pack(len(frame)) + frame)


if __name__ == "__main__":
    sys.modules["llm_assets.datasets.parquet_process"] = sys.modules["__main__"]
    for own in (Other, Fault):
        own.__module__ = "llm_assets.datasets.parquet_process"
    main(*map(int, sys.argv[1:]))
