"""Unix sockets below the state folder, whose whole path may be longer than a socket's address can be."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LISTENS = 0x10000  # __SO_ACCEPTCON


@contextmanager
def short_address(path: Path) -> Iterator[str]:
    """An address of the socket for as long as the block runs: by way of its folder's descriptor.

    Raises:
        OSError: The folder cannot be opened.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def connections_to(address: str) -> int:
    """How many connections there are to a socket, those included that nobody has accepted yet.

    Those of this network namespace: the kernel keeps a connection where it was begun, not where it leads.

    Args:
        address: As it was bound, so that no other socket has it.
    """
    found = (line.split(maxsplit=7) for line in Path("/proc/net/unix").read_text().splitlines()[1:])
    return sum(
        len(fields) == 8 and fields[7] == address and not int(fields[3], 16) & _LISTENS for fields in found
    )
