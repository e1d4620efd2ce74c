"""A few rows to look at, short: a dataset may hold personal data, and what the UI shows is kept long."""

from collections.abc import Mapping
from typing import Any

SAMPLE_ROWS = 3
SAMPLE_TEXT_LENGTH = 200
SAMPLE_MESSAGES = 6


def sample(row: Mapping[str, object]) -> dict[str, Any]:
    """The row with its texts and lists cut."""
    return {column: _cut(value) for column, value in row.items()}


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= SAMPLE_TEXT_LENGTH else value[: SAMPLE_TEXT_LENGTH - 1] + "…"
    if isinstance(value, list):
        return [_cut(item) for item in value[:SAMPLE_MESSAGES]]
    if isinstance(value, dict):
        return {key: _cut(item) for key, item in value.items()}
    return value
