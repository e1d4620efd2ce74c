"""What a worker reports, line by line in a file, on its way to Dagster.

Dagster's own reader of such a file stops as soon as it has seen no line and the process has ended: what was
written between the two looks is lost, and that is the result. It also takes half a line for a message, and
one that it cannot read ends it. Here the asker reads, when it likes, and once more when the process has
ended: then nothing more can come.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from dagster._core.pipes.context import PipesMessageHandler  # what a reader is given; not re-exported
from dagster_pipes import PipesDefaultMessageWriter, PipesParams


class MessageFile(dg.PipesMessageReader):
    """Messages that one process after another appends to a file, which is there for one session."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handler: PipesMessageHandler | None = None
        self._read_bytes = 0
        self.unreadable: list[str] = []

    @contextmanager
    def read_messages(self, handler: PipesMessageHandler) -> Iterator[PipesParams]:
        self._path.write_bytes(b"")  # of an earlier try
        self._handler = handler
        try:
            yield {
                PipesDefaultMessageWriter.FILE_PATH_KEY: str(self._path),
                PipesDefaultMessageWriter.INCLUDE_STDIO_IN_MESSAGES_KEY: False,
            }
        finally:
            self._path.unlink(missing_ok=True)

    def read(self) -> None:
        """Hands every whole message on that was not read before; the rest of a line may be on its way."""
        with self._path.open("rb") as stream:
            stream.seek(self._read_bytes)
            *lines, _ = stream.read().split(b"\n")
        for line in lines:
            self._read_bytes += len(line) + 1
            self._take(line)

    def _take(self, line: bytes) -> None:
        assert self._handler is not None
        try:
            message = json.loads(line)
        except ValueError:  # half a message, of a disk that was full for a moment
            self.unreadable.append(line.decode(errors="replace"))
            return
        self._handler.handle_message(message)

    def no_messages_debug_text(self) -> str:
        return f"Messages were read from the file {self._path}."
