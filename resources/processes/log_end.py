"""The last lines of a process's log, for the error that says why it failed."""

from pathlib import Path

LINES = 15


def last_lines(text: str) -> str:
    return "\n".join(text.splitlines()[-LINES:])


def log_end(log: Path) -> str:
    """As the end of an error's text; a process that never wrote anything has no log."""
    if not log.exists():
        return f"It has no log ({log})."
    return f"The end of its log, {log}:\n{last_lines(log.read_text(errors='replace'))}"
