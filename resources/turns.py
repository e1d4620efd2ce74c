"""What every kind of turn has in common: it is taken again by who has it, and waiting for it is told."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from resources.seams.state import Holder, Say, TurnTakenError

FIRST_PAUSE_S, LAST_PAUSE_S = 0.02, 1.0

_held = threading.local()


def turn_name(tenant: str | None, model: str, work: str) -> str:
    """Of tenants, DNS labels as they are, none holds a dot or an underscore."""
    return f"{tenant or 'all_tenants'}.{model}.{work}"


def new_holder(doing: str) -> Holder:
    return Holder(doing=doing, machine=socket.gethostname(), since=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")


@contextmanager
def had_once(key: object) -> Iterator[bool]:
    """Whether this thread has to take the turn of that key; otherwise it has it."""
    held: set[object] = _held.__dict__.setdefault("keys", set())
    if key in held:
        yield False
        return
    held.add(key)
    try:
        yield True
    finally:
        held.remove(key)


def wait_for_turn(
    what: str,
    take: Callable[[], bool],
    holder: Callable[[], Holder | None],
    *,
    say: Say,
    timeout_s: float,
) -> None:
    """Asks `take` until it gives True.

    Raises:
        TurnTakenError: It did not in `timeout_s` seconds.
    """
    deadline, pause_s, said = time.monotonic() + timeout_s, FIRST_PAUSE_S, False
    while not take():
        who = str(holder() or "another process")
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TurnTakenError(
                f"{what} is taken by {who}; waited {timeout_s:g} s. Find its run in the Dagster UI "
                "under Runs and end it, or wait for it, then try again."
            )
        if not said:
            say(f"{what} is taken by {who}; waiting for it.")
            said = True
        time.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, LAST_PAUSE_S)
