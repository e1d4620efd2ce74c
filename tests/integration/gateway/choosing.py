"""Which version the gateway is to choose, said once more in Python: the oracle of its filter."""

import hashlib
from collections.abc import Mapping


def chosen(weights: Mapping[str, int], key: str) -> str:
    """The version of a request with that key.

    Args:
        weights: Of each version in percent, production first.
    """
    point = int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big") / 2**48 * sum(weights.values())
    for version, weight in reversed(list(weights.items())):  # production last: others only take from it
        point -= weight
        if point < 0:
            return version
    return next(iter(weights))
