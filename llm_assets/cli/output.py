"""What commands print to: a terminal at its width; in a file or a pipe every line is whole, however long."""

from rich.console import Console

WHOLE = 1_000_000  # columns


def output() -> Console:
    """The standard output, for sentences and tables."""
    if Console().is_terminal:
        return Console(highlight=False)
    return Console(highlight=False, width=WHOLE)
