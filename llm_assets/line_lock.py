"""One writer per tenant and model: a second run waits for the first and then reuses its work."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from resources.errors import LlmAssetsError

WAIT_S = 4 * 3600


class LineBusyError(LlmAssetsError):
    """Another run has held the line of this tenant and model for too long."""


@contextmanager
def line_lock(folder: Path, *parts: str, log: Callable[[str], None]) -> Iterator[None]:
    """Holds the lock named by `parts`; the operating system frees it when the holder dies."""
    folder.mkdir(parents=True, exist_ok=True)
    name = ".".join(parts)
    lock = FileLock(folder / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log(f"Another run is at work on {name}; waiting for it to finish.")
        try:
            lock.acquire(timeout=WAIT_S)
        except Timeout as error:
            raise LineBusyError(
                f"Another run has been at work on {name} for over {WAIT_S // 3600} hours. "
                "Find it in the Dagster UI under Runs and end it, then run again."
            ) from error
    try:
        yield
    finally:
        lock.release()
