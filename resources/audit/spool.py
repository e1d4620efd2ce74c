"""What the gateway wrote down: `<boot ms>-<seq>.jsonl`, one event a line, appended by the gateway alone.

A line counts once its newline is there; a torn last line waits. What was sealed is overwritten with spaces in
place, so that a spool file holds no personal data for longer than it takes to seal it, and so that whoever
starts anew finds only what is still to be done. A file is deleted when a later one exists and nothing in it
is left.
"""

import json
import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

NAME = re.compile(r"(\d+)-(\d+)\.jsonl")
CHUNK_BYTES = 4 * 2**20
"""Read at once, and so about the memory of one batch, unless a single line is longer."""

BLANK = b" "

_DECODER = json.JSONDecoder(parse_constant=lambda _: None)  # NaN and Infinity are no JSON

_log = logging.getLogger(__name__)


class SpoolLine(NamedTuple):
    """One event and where it stands. `event` is None for a line that is no JSON object."""

    file: "SpoolFile"
    offset: int
    size: int
    event: dict[str, Any] | None


class SpoolFile:
    """One file, read as far as `position`; `unsealed` lines of it are still needed."""

    def __init__(self, path: Path) -> None:
        boot, seq = _order(path.name)
        self.path, self.boot, self.seq = path, boot, seq
        self.position = self.unsealed = 0
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self.size_at_start = self.size()

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def read(self) -> Iterator[SpoolLine]:
        """The next whole lines, about one chunk of them."""
        chunk = self._chunk()
        end = chunk.rfind(b"\n") + 1
        offset, self.position = self.position, self.position + end
        for line in chunk[: max(end - 1, 0)].split(b"\n"):
            size = len(line) + 1
            if line and not line.isspace():
                self.unsealed += 1
                yield SpoolLine(self, offset, size, _parsed(line))
            offset += size

    def _chunk(self) -> bytes:
        """From the position on, with at least one newline in it where there is one."""
        wanted, there = CHUNK_BYTES, self.size() - self.position
        while True:
            chunk = os.pread(self._descriptor, wanted, self.position)
            if b"\n" in chunk or wanted >= there:
                return chunk
            wanted *= 2

    def read_again(self, offset: int, size: int) -> dict[str, Any] | None:
        return _parsed(os.pread(self._descriptor, size, offset))

    def torn_bytes(self) -> int:
        """How much stands behind the position."""
        return self.size() - self.position

    def read_out(self) -> bool:
        """Whether no whole line is left to be read."""
        rest = self.torn_bytes()
        return not rest or b"\n" not in os.pread(self._descriptor, rest, self.position)

    def blank(self, places: Iterable[tuple[int, int]]) -> None:
        """Overwrites lines (offset, size) that were sealed; neighbours in one write."""
        count = 0
        start = end = -1
        for offset, size in sorted(places):
            count += 1
            if offset != end:
                self._overwrite(start, end)
                start = offset
            end = offset + size
        self._overwrite(start, end)
        self.unsealed -= count

    def _overwrite(self, start: int, end: int) -> None:
        if end > start:
            os.pwrite(self._descriptor, BLANK * (end - start - 1) + b"\n", start)

    def delete(self) -> None:
        """What is behind the position (a torn line) is overwritten too, then the file goes."""
        if torn := self.torn_bytes():
            os.pwrite(self._descriptor, BLANK * torn, self.position)
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        os.close(self._descriptor)


class Spool:
    """The files of the folder, in the order in which they were written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[SpoolFile] = []

    def look(self) -> None:
        """Takes in new files. A folder that is not there yet has none."""
        known = {file.path.name for file in self.files}
        try:
            found = [path for path in self.folder.iterdir() if NAME.fullmatch(path.name)]
        except FileNotFoundError:
            found = []
        self.files += [SpoolFile(path) for path in found if path.name not in known]
        self.files.sort(key=lambda file: (file.boot, file.seq))

    def newest_boot(self) -> int:
        return self.files[-1].boot if self.files else 0

    def read(self) -> Iterator[SpoolLine]:
        """About one chunk of lines from the first file that has any."""
        for file in self.files:
            yielded = False
            for line in file.read():
                yielded = True
                yield line
            if yielded:
                return

    def clear(self) -> None:
        """Deletes the finished files that hold nothing any more."""
        for file in self.files[:-1]:
            if file.unsealed or not file.read_out():
                continue
            if torn := file.torn_bytes():
                _log.warning("%s ends in %d bytes of a line that was never finished.", file.path, torn)
            file.delete()
        self.files = [file for file in self.files if file is self.files[-1] or file.path.exists()]

    def close(self) -> None:
        for file in self.files:
            file.close()


def _order(name: str) -> tuple[int, int]:
    match = NAME.fullmatch(name)
    assert match  # only such names are opened
    return int(match[1]), int(match[2])


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        event = _DECODER.decode(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("id"), str) else None
