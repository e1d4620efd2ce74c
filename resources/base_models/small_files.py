"""Reads the files beside a model's weights, which are small, or are not what their names say."""

import json
from pathlib import Path

from resources.base_models.error import BaseModelSourceError

MOST_BYTES = 64 << 20  # a tokenizer of 250,000 words has half of it, an index of a thousand shards a fifth


def read_small(path: Path) -> bytes:
    """The file's bytes. Raises BaseModelSourceError where it has more than `MOST_BYTES`."""
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise BaseModelSourceError(
            f"{path} has more than {MOST_BYTES:,} bytes, and no model's has so many; fetch it again."
        )
    return content


def read_object(path: Path) -> dict[str, object]:
    """The JSON object that a file holds. Raises BaseModelSourceError where it holds none."""
    try:
        value = json.loads(read_small(path))
    except (ValueError, RecursionError) as error:
        raise BaseModelSourceError(f"{path} is not JSON ({error}); fetch it again.") from error
    if not isinstance(value, dict):
        raise BaseModelSourceError(f"{path} holds no JSON object; fetch it again.")
    return value
