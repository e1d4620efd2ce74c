"""Where tables go: the terminal at its width, a file or a pipe at one that keeps identifiers whole."""

from rich.console import Console

FILE_WIDTH = 160


def table_console() -> Console:
    return Console(highlight=False) if Console().is_terminal else Console(width=FILE_WIDTH, highlight=False)
