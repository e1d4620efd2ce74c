"""Commands in a real terminal (a pty), seen as a person sees them: through a terminal emulator."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import pyte

from llm_assets.cli.display import FRAMES

COLUMNS, LINES = 100, 30
LOOK_S = 0.05


def is_moving(line: str) -> bool:
    return line.strip()[:1] in FRAMES


class Terminal:
    """A command in a terminal of its own: `raw` is all it wrote, `moving` its moving lines as they moved."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self._process, self._master = process, master
        self._screen = pyte.HistoryScreen(COLUMNS, LINES, history=10_000, ratio=1)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        self.moving: set[str] = set()

    def lines(self) -> list[str]:
        """What scrolled away and what is on the screen, without blank lines."""
        rows = [*self._screen.history.top, *(self._screen.buffer[row] for row in range(LINES))]
        texts = ("".join(row[column].data for column in range(COLUMNS)).rstrip() for row in rows)
        return [text for text in texts if text]

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def kill(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait_until(self, seen: Callable[[list[str]], bool], *, timeout_s: float) -> None:
        """Reads until the lines are as wanted."""
        deadline = time.monotonic() + timeout_s
        while not seen(self.lines()):
            assert self._process.poll() is None, self.lines()
            assert time.monotonic() < deadline, self.lines()
            self._read()

    def wait(self, *, timeout_s: float) -> int:
        """Reads to the command's end."""
        deadline = time.monotonic() + timeout_s
        while self._read():
            assert time.monotonic() < deadline, self.lines()
        return self._process.wait(timeout_s)

    def _read(self) -> bool:
        if not select.select([self._master], [], [], LOOK_S)[0]:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: nobody has the terminal open any more
            return False
        self.raw += data
        self._stream.feed(data)
        self.moving.update(line for line in self.lines() if is_moving(line))
        return bool(data)


@contextlib.contextmanager
def in_terminal(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[Terminal]:
    """Starts the command as the foreground job of a new terminal: Ctrl-C reaches all its processes."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    known = {name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        command,
        env={**known, "TERM": "xterm-256color"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C comes as a signal
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        process.kill()
        process.wait()
        os.close(master)
