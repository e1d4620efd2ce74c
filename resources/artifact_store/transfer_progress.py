"""How far a transfer is, said every few seconds while it lasts; a short one says nothing."""

import threading
import time
from collections.abc import Callable

EVERY_S = 2.0
BAR_CELLS = 20

Log = Callable[[str], None]


def silent(text: str) -> None:
    """For whoever does not want to hear."""


class TransferProgress:
    """Counts bytes, from several threads at once, and says so.

    Args:
        what: Such as `Publishing models/team-a/support_bot`.
        total_bytes: None where it is not known yet how much it will be.
    """

    def __init__(self, what: str, total_bytes: int | None, log: Log) -> None:
        self._what, self._total_bytes, self._log = what, total_bytes, log
        self._lock = threading.Lock()
        self._done_bytes = 0
        self._started = self._said = time.monotonic()

    @property
    def done_bytes(self) -> int:
        return self._done_bytes

    def moved(self, count_bytes: int) -> None:
        with self._lock:
            self._done_bytes += count_bytes
            now = time.monotonic()
            if now - self._said < EVERY_S:
                return
            self._said = now
            text = self._text(now - self._started)
        self._log(text)

    def _text(self, seconds: float) -> str:
        speed = self._done_bytes / seconds
        done = f"{self._done_bytes / 1e6:,.0f}"
        if not self._total_bytes:
            return f"{self._what}: {done} MB, {speed / 1e6:,.0f} MB/s"
        share = min(1.0, self._done_bytes / self._total_bytes)
        bar = "█" * round(share * BAR_CELLS)
        left_s = max(0.0, self._total_bytes - self._done_bytes) / max(speed, 1.0)
        total = f"{self._total_bytes / 1e6:,.0f}"
        pace = f"{speed / 1e6:,.0f} MB/s, {left_s:,.0f} s left"
        return f"{self._what}: {bar:░<{BAR_CELLS}} {done} of {total} MB, {pace}"
