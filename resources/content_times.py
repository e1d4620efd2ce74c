"""A time of modification that a file's content decides: a copy has the same one on every machine."""

import hashlib

BASE_NS = 10**18  # in 2001; the times lie within eleven days after it, a microsecond or more apart


def time_of(content: str) -> int:
    """Nanoseconds since the epoch; `content` is what differs when the file does, such as its hash."""
    return BASE_NS + int(hashlib.sha256(content.encode()).hexdigest(), 16) % 10**12 * 1000
