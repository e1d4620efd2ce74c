"""The screen that progress is shown on, whatever becomes of the standard output meanwhile.

While a step runs, Dagster makes file descriptor 1 the step's log, so what is shown then needs a duplicate of
it that was taken before.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, ConsoleDimensions

STANDARD = (1, 2)  # file descriptors of the standard output and the standard error


class Screen(Console):
    """A console on a duplicate of the standard output, as wide as that terminal is now.

    Without a terminal, lines are not cut.
    """

    def __init__(self) -> None:
        sys.stdout.flush()
        file = os.fdopen(os.dup(STANDARD[0]), "w", encoding="utf-8", errors="replace")
        super().__init__(file=file, highlight=False, soft_wrap=not file.isatty())

    @property  # type: ignore[misc]  # rich's has a setter too, which nothing here needs
    def size(self) -> ConsoleDimensions:
        if self._width is None and self.is_terminal:
            columns, lines = os.get_terminal_size(self.file.fileno())
            if columns and lines:
                return ConsoleDimensions(columns, lines)
        return super().size


@contextmanager
def output_into(file: Path) -> Iterator[None]:
    """What this process and its children write to the standard output and error goes to the end of `file`.

    Dagster copies each step's log to the terminal by processes of its own, which would write between the live
    lines and which end with a traceback at Ctrl-C.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    _flush()
    kept = [os.dup(descriptor) for descriptor in STANDARD]
    try:
        with file.open("ab") as target:
            for descriptor in STANDARD:
                os.dup2(target.fileno(), descriptor)
        yield
    finally:
        _flush()
        for descriptor, before in zip(STANDARD, kept, strict=True):
            os.dup2(before, descriptor)
            os.close(before)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
