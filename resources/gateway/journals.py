"""Journals: what the gateway follows while it runs, as JSON Lines that only grow.

An append returns once the line is on the disk, and the gateway reads what was appended before it answers
the next request. A writer that was killed leaves at most a last line without its end: readers do not count
it, and the next writer cuts it off. Writers take turns by a lock beside the file, which the operating system
frees when its holder dies.

Not covered: a line damaged on the disk. Reading then fails and names it, because a line that is passed over
could be a revocation.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock

from resources.durable_files import replace_file, sync
from resources.gateway.errors import GatewayError

LOCK_S = 30
_LOOK_BACK_BYTES = 65536


@dataclass(frozen=True)
class Journal:
    """One journal. A file that is not there yet is an empty one."""

    path: Path

    def append(self, *events: Mapping[str, object]) -> None:
        """Writes the events in one piece; they count, and outlive a power cut, once this has returned.

        Raises:
            GatewayError: They cannot be written. None of them counts then.
        """
        self.amend(lambda _earlier: events)

    def amend(self, made: Callable[[Iterator[dict[str, object]]], Iterable[Mapping[str, object]]]) -> None:
        """Appends what `made` makes of the events so far, which nobody changes meanwhile.

        Raises:
            GatewayError: As `append`. Whatever `made` raises comes through, and nothing is written.
        """
        with self._locked():
            content = b"".join(_line(event) for event in made(self.events()))
            if content:
                self._write(content)

    def _write(self, content: bytes) -> None:
        with self._opened() as file:
            end = _without_a_torn_line(file)
            try:
                _write(file, content)
                os.fsync(file)
            except OSError:
                os.ftruncate(file, end)
                raise

    def events(self) -> Iterator[dict[str, object]]:
        """Every whole line so far, oldest first.

        Raises:
            GatewayError: A line is damaged, or the file cannot be read.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as fault:
            raise self._unusable("read", fault) from fault
        whole, _, _torn = content.rpartition(b"\n")
        for number, line in enumerate(whole.split(b"\n") if whole else [], start=1):
            yield self._event(line, number)

    def compact(self, kept: Callable[[Iterator[dict[str, object]]], Iterable[Mapping[str, object]]]) -> None:
        """Replaces the journal, in one step, by what `kept` makes of its events.

        They are handed over under the lock, so that nothing appended meanwhile is lost. A gateway that runs
        reads the new file from its beginning.
        """
        with self._locked():
            content = b"".join(_line(event) for event in kept(self.events()))
            replace_file(self.path, content, sync_folder=True)

    def _event(self, line: bytes, number: int) -> dict[str, object]:
        try:
            event = json.loads(line)
        except ValueError as fault:
            raise self._damaged(number, str(fault)) from fault
        if not isinstance(event, dict):
            raise self._damaged(number, "not a JSON object")
        return event

    def _damaged(self, number: int, why: str) -> GatewayError:
        return GatewayError(
            f"Line {number} of {self.path} is damaged ({why}). Restore the file from a backup; a line "
            "that is left out could be a revoked key."
        )

    @contextmanager
    def _opened(self) -> Iterator[int]:
        new = not self.path.exists()
        file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if new:
                sync(self.path.parent)
            yield file
        finally:
            os.close(file)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = filelock.FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=LOCK_S, mode=0o600)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with lock:
                yield
        except filelock.Timeout as fault:
            raise GatewayError(
                f"Another process has held {lock.lock_file} for over {LOCK_S} s. End it (`fuser` names it), "
                "then try again."
            ) from fault
        except OSError as fault:
            raise self._unusable("written", fault) from fault

    def _unusable(self, verb: str, fault: OSError) -> GatewayError:
        return GatewayError(
            f"{self.path} cannot be {verb}: {fault.strerror or fault}. Check the disk, and who owns the "
            "folder, then try again."
        )


def _line(event: Mapping[str, object]) -> bytes:
    return json.dumps(event, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _without_a_torn_line(file: int) -> int:
    """Cuts off a last line that was never finished; the size that is left."""
    size = end = os.fstat(file).st_size
    while end > 0:
        start = max(0, end - _LOOK_BACK_BYTES)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(file, end)
    return end


def _write(file: int, content: bytes) -> None:
    """One write(2), unless the operating system takes less at once."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(file, rest) :]
