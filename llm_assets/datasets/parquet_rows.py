"""Rows of Parquet files, decoded by a process of its own with limited memory (`parquet_process.py`)."""

import io
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

from llm_assets.datasets import parquet_process
from llm_assets.datasets.limits import Limits
from llm_assets.datasets.parquet_process import LENGTH, Fault, Other
from resources.errors import LlmAssetsError

ENDING_S = 30
PASSED_ON = ("PATH", "LD_LIBRARY_PATH")
# No credentials. One thread and the plain allocator: what is counted is what is used.
ENVIRONMENT = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "ARROW_IO_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
}


class ParquetError(LlmAssetsError):
    """A Parquet file is read no further than `row`, counted from 1."""

    def __init__(self, row: int, problem: str) -> None:
        super().__init__(problem)
        self.row, self.problem = row, problem


class ParquetDecoder:
    """One process for the files of a landing zone, started with the first of them and anew after it died."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._orders: socket.socket | None = None

    def rows(self, file: BinaryIO) -> Iterator[dict[str, object]]:
        """Raises:
        ParquetError: The file is not whole, or is over a limit.
        """
        read_end, write_end = os.pipe()
        with open(read_end, "rb") as frames:  # noqa: PTH123  of a descriptor
            try:
                socket.send_fds(self._started(), [b"f"], [file.fileno(), write_end])
            finally:
                os.close(write_end)
            row = 0
            while (frame := self._frame(frames, row)) is not None:
                if isinstance(frame, Fault):
                    raise ParquetError(frame.row, self._problem(frame))
                for each in frame:
                    row += 1
                    yield each

    def close(self) -> None:
        if self._orders is not None:
            self._orders.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._orders = None

    def _started(self) -> socket.socket:
        if self._orders is None or self._process is None or self._process.poll() is not None:
            self.close()
            self._orders, theirs = socket.socketpair()
            limits = [self._limits.memory_bytes, self._limits.row_bytes, self._limits.size_bytes]
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", parquet_process.__file__, *map(str, limits)],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=ENVIRONMENT | {name: os.environ[name] for name in PASSED_ON if name in os.environ},
                )
        return self._orders

    def _frame(self, frames: BinaryIO, row: int) -> Any:
        length = frames.read(LENGTH.size)
        frame = frames.read(*LENGTH.unpack(length)) if len(length) == LENGTH.size else b""
        try:
            return _Frames(io.BytesIO(frame)).load()
        except (EOFError, pickle.UnpicklingError) as error:
            raise ParquetError(row + 1, self._how_it_ended()) from error

    def _problem(self, fault: Fault) -> str:
        match fault.kind:
            case "memory":
                return f"its row needs {self._limits.over_memory}"
            case "row":
                return f"the row has {self._limits.over_row}"
            case "size":
                return f"its rows have {self._limits.over_size}"
        return f"the file is no whole Parquet file: {fault.text}; write it again"

    def _how_it_ended(self) -> str:
        assert self._process is not None
        try:
            code = self._process.wait(timeout=ENDING_S)
        except subprocess.TimeoutExpired:
            self.close()
            return "the process that decodes it does not answer; write the file again"
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        return (
            f"the process that decodes it ended with {how}: the file is damaged, or needs "
            f"{self._limits.over_memory}"
        )


class _Frames(pickle.Unpickler):
    """What decodes hostile files may be hostile itself by then: nothing but plain values is taken from it."""

    def find_class(self, module: str, name: str) -> Any:
        if module == parquet_process.__name__ and name in ("Other", "Fault"):
            return {"Other": Other, "Fault": Fault}[name]
        raise pickle.UnpicklingError(
            f"{module}.{name} is not expected from the process that decodes Parquet."
        )
