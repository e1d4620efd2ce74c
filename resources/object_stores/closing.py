"""Connections and threads that end with the store that they belong to: a caller has nothing to close."""

import weakref
from collections.abc import Callable


def closed_with(store: object, *closers: Callable[[], None]) -> None:
    """Calls `closers`, which may not hold `store`, when nobody holds it any more or the process ends."""
    for close in closers:
        weakref.finalize(store, close)
