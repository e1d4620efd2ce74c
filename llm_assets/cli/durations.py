"""Durations and moments as people write them on the command line: `90d`, `2027-01-31`."""

import re
from datetime import UTC, datetime

from llm_assets.cli.options import UsageError

_UNITS_S = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION = re.compile(rf"([0-9]{{1,9}})({'|'.join(_UNITS_S)})")


def seconds(text: str) -> float:
    """Raises:
    UsageError: It is no duration.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is no duration; a number with s, min, h, d or w is, such as 90d.")
    return int(match[1]) * _UNITS_S[match[2]]


def moment(text: str, *, now: float) -> float:
    """A moment to come, in epoch seconds: a duration from now, or an ISO date or time, UTC unless it says.

    Raises:
        UsageError: It is neither, or it has passed.
    """
    at = now + seconds(text) if _DURATION.fullmatch(text) else _timestamp(text)
    if at <= now:
        raise UsageError(f"{text} has passed; a moment to come is needed, such as 90d.")
    return at


def _timestamp(text: str) -> float:
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is no moment; a duration (12h, 90d) is, or a date such as 2027-01-31."
        ) from error
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
