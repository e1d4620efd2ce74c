"""Connections and threads that end with the store that they belong to: a caller has nothing to close."""

import weakref
from collections.abc import Callable


def closed_with(store: object, *closers: Callable[[], None]) -> None:
    """Calls `closers` when nobody holds `store` any more, or when the process ends. None of them may hold it."""
    for close in closers:
        weakref.finalize(store, close)
