"""Waiting for something outside to become ready: with a deadline, by name, and ended at once by a failure."""

import time
from collections.abc import Callable
from typing import Literal, TypeVar

from resources.errors import LlmAssetsError

T = TypeVar("T")


class WaitError(LlmAssetsError):
    """What was waited for did not become ready."""


class WaitTimeout(WaitError):
    """The deadline passed first."""


class WaitFailed(WaitError):
    """It failed first, so waiting on would be in vain."""


def wait_until(
    ready: Callable[[], T | Literal[False] | None],
    *,
    what: str,
    timeout_s: float,
    every_s: float = 0.2,
    failed: Callable[[], str | None] = lambda: None,
) -> T:
    """Asks `ready` until it gives something true, and returns that.

    Args:
        ready: Gives None or False while there is nothing yet. It is asked at least once.
        what: The awaited thing as a person names it; it stands in every error.
        failed: Gives the reason once the thing can no longer become ready.

    Raises:
        WaitFailed: `failed` gave a reason.
        WaitTimeout: `timeout_s` seconds passed.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        result = ready()
        if result is not None and result is not False:
            return result
        if reason := failed():
            raise WaitFailed(f"{what} failed: {reason}")
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise WaitTimeout(f"{what} was not ready after {timeout_s:g} s.")
        time.sleep(min(every_s, left_s))
