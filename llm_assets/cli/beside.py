"""Commands that go on beside the one in the terminal: what each says last is a moving line there.

They end with the command that started them, whichever way it ends.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType

from llm_assets.cli.display import Display, done_line
from resources.errors import LlmAssetsError

END_S = 30


class BesideError(LlmAssetsError):
    """A command that went on beside another one failed."""


class Command:
    """One `llm-assets …`, in a process of its own."""

    def __init__(self, name: str, arguments: Sequence[str], display: Display) -> None:
        self.name, self._arguments, self._display = name, arguments, display
        self._process: subprocess.Popen[str] | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._spoke = threading.Event()
        self._said: list[str] = []

    def start(self) -> None:
        command = [sys.executable, "-m", "llm_assets.cli.main", *self._arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._reader.start()

    def wait_for_a_word(self) -> None:
        """Waits until it has said something, or ended."""
        self._spoke.wait()

    def result(self) -> str:
        """Waits for its end and gives back what it said.

        Raises:
            BesideError: It failed; the text has what it said.
        """
        self._reader.join()
        said = "".join(self._said).strip()
        if self._process is None or self._process.wait():
            raise BesideError(f"{self.name}: {said}")
        return said

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        work = self._display.begin(self.name)
        with self._process.stdout as lines:
            for line in lines:
                self._said.append(line)
                self._display.say(work, line.strip().removeprefix(f"{self.name}: "))
                self._spoke.set()
        failed = self._process.wait() != 0
        self._display.end(work, done_line(self.name, time.time() - work.started, failed=failed))
        self._spoke.set()


class Beside(AbstractContextManager["Beside"]):
    """The commands beside one that is shown on `display`."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._commands: list[Command] = []

    def command(self, name: str, *arguments: str) -> Command:
        self._commands.append(Command(name, arguments, self._display))
        return self._commands[-1]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for command in self._commands:
            command.end()
