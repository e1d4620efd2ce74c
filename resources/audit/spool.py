"""What the gateway wrote down: `<boot>-<seq>.jsonl`, one event a line, appended by the gateway alone.

A boot's number is higher than that of any before, whatever the clock says, and the gateway holds the lock
`<boot>.lock` for as long as it lives: so, and by no time, is known what is later and to what nothing comes.

A line counts once its newline is there; a torn last line waits. What was sealed is overwritten with spaces in
place, so that a spool file holds no personal data for longer than it takes to seal it, and so that whoever
starts anew finds only what is still to be done. A file is deleted when a later one exists and nothing in it
is left.
"""

import fcntl
import json
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson

NAME = re.compile(r"(\d+)-(\d+)\.jsonl")
CHUNK_BYTES = 4 * 2**20
"""Read at once, and so about the memory of one batch, unless a single line is longer."""

BLANK = b" "
QUIET_S = 2.0
OPENED = 16
"""Files with something to read that are opened at once, however many a collector that stood still left."""

_LENIENT = json.JSONDecoder(parse_constant=lambda _: None)  # NaN and Infinity are no JSON

_log = logging.getLogger(__name__)


class SpoolLine(NamedTuple):
    """One event and where it stands. `event` is None for a line that is no JSON object."""

    file: "SpoolFile"
    offset: int
    size: int
    event: dict[str, object] | None


class SpoolFile:
    """One file, read as far as `position`; `unsealed` lines of it are still needed."""

    def __init__(self, path: Path) -> None:
        self.path, self.order = path, _order(path.name)
        self._quiet_since, self._quiet_size = time.monotonic(), -1
        self.position = self.unsealed = 0
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self.size_at_start = self.size()

    @property
    def boot(self) -> int:
        return self.order[0]

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def read(self) -> Iterator[SpoolLine]:
        """The next whole lines, about one chunk of them."""
        chunk = self._chunk()
        end = chunk.rfind(b"\n") + 1
        offset, self.position = self.position, self.position + end
        for line in chunk[: max(end - 1, 0)].split(b"\n"):
            size = len(line) + 1
            if line.startswith(BLANK):
                if not line.isspace():  # whoever blanked it was cut off within; it is sealed
                    self._overwrite(offset, offset + size)
            elif line and not line.isspace():
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

    def read_again(self, offset: int, size: int) -> dict[str, object] | None:
        return _parsed(os.pread(self._descriptor, size, offset))

    def torn_bytes(self) -> int:
        """How much stands behind the position."""
        return self.size() - self.position

    def read_out(self) -> bool:
        """Whether no whole line is left to be read."""
        rest = self.torn_bytes()
        return not rest or b"\n" not in os.pread(self._descriptor, rest, self.position)

    def quiet(self) -> bool:
        """Whether nobody has appended for a while; the gateway notices a deleted file after a second."""
        now, size = time.monotonic(), self.size()
        if size != self._quiet_size:
            self._quiet_since, self._quiet_size = now, size
        return now - self._quiet_since >= QUIET_S

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
        self._orders: set[tuple[int, int]] = set()
        self._newest = (0, 0)
        self._unopened: list[tuple[int, int]] = []

    def look(self) -> None:
        """Opens the next files. A folder that is not there yet has none."""
        try:
            orders = {_order(path.name): path for path in self.folder.iterdir() if NAME.fullmatch(path.name)}
        except FileNotFoundError:
            orders = {}
        self._orders = set(orders)
        self._newest = max(orders, default=(0, 0))
        unknown = sorted(orders.keys() - {file.order for file in self.files})
        count = max(OPENED - sum(not file.read_out() for file in self.files), 1)
        self._unopened = unknown[count:]
        self.files += [SpoolFile(orders[order]) for order in unknown[:count]]
        self.files.sort(key=lambda file: file.order)

    def unread_bytes(self) -> int:
        """How much is there to be read, in the files that are opened."""
        return sum(file.torn_bytes() for file in self.files)

    @property
    def all_opened(self) -> bool:
        return not self._unopened

    def newest_boot(self) -> int:
        return self._newest[0]

    def boots_alive(self) -> dict[int, bool | None]:
        """Whether the gateway of each boot lives; None where no lock tells. A dead one wrote all it will."""
        return {boot: self._alive(boot) for boot in {boot for boot, _ in self._orders}}

    def _alive(self, boot: int) -> bool | None:
        """Whether its gateway holds the boot's lock; None where there is none."""
        try:
            descriptor = os.open(self._lock(boot), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _lock(self, boot: int) -> Path:
        return self.folder / f"{boot}.lock"

    def boots_unread(self) -> set[int]:
        """The boots of the gateway that have lines which were not read yet."""
        return {boot for boot, _ in self._unopened} | {f.boot for f in self.files if not f.read_out()}

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
        for file in list(self.files):
            if file.unsealed or not self._finished(file) or not file.read_out():
                continue
            if torn := file.torn_bytes():
                _log.warning("%s ends in %d bytes of a line that was never finished.", file.path, torn)
            file.delete()
            self.files.remove(file)
            self._orders.discard(file.order)
            if all(boot != file.boot for boot, _ in self._orders) and self._alive(file.boot) is False:
                self._lock(file.boot).unlink(missing_ok=True)

    def _finished(self, file: SpoolFile) -> bool:
        """Nothing more comes: its boot has a later file, or is over; where no lock tells, it is quiet."""
        if file.order >= self._newest:
            return False
        if any(boot == file.boot and order > file.order[1] for boot, order in self._orders):
            return True
        alive = self._alive(file.boot)
        return file.quiet() if alive is None else not alive

    def close(self) -> None:
        for file in self.files:
            file.close()


def _order(name: str) -> tuple[int, int]:
    match = NAME.fullmatch(name)
    assert match  # only such names are opened
    return int(match[1]), int(match[2])


def _parsed_leniently(line: bytes) -> Any:
    """What no gateway writes and can be read all the same: half a surrogate pair, bytes that are no UTF-8."""
    try:
        return _LENIENT.decode(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def _parsed(line: bytes) -> dict[str, object] | None:
    try:
        event = orjson.loads(line)
    except ValueError:
        event = _parsed_leniently(line)
    return event if isinstance(event, dict) and isinstance(event.get("id"), str) else None
