"""Splits a dataset into training and held-out rows by what the rows say.

A row's side depends on its content and the seed alone, so neither the order of rows nor the names of
files move one, equal rows are always on the same side, and adding rows moves at most a few.
"""

import hashlib
from collections.abc import Iterable

KEY_BYTES = 16


def split_key(content: bytes, seed: int) -> bytes:
    """Where a row stands in the seeded order: a keyed BLAKE2b hash of its content."""
    return hashlib.blake2b(content, digest_size=KEY_BYTES, key=f"split {seed}".encode()).digest()


def held_out_keys(keys: Iterable[bytes], fraction: float) -> frozenset[bytes]:
    """The keys of the rows to hold out: the smallest ones of all, `fraction` of the distinct rows.

    With two distinct rows or more each side gets one at least; a fraction of 0 holds out none.
    """
    distinct = sorted(set(keys))
    if fraction == 0 or len(distinct) < 2:
        return frozenset()
    wanted = min(max(round(len(distinct) * fraction), 1), len(distinct) - 1)
    return frozenset(distinct[:wanted])
