"""A collector that dies in the middle of its n-th write, sync or rename: half of the bytes, then the end.

python dying.py <home> <n>     exit code 0: it had less to do than that
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from resources.audit.chain import SegmentLimits
from resources.audit.collecting import Collector
from resources.audit.personal_text import Pseudonymizer
from resources.audit.places import AuditPlaces
from resources.audit.sealing import Sealer

DIED = 9
CALLS = ("write", "pwrite", "fsync", "rename", "ftruncate", "truncate")


def dying_at(count: int) -> None:
    """Counts the calls of all these functions together."""
    left = [count]

    def wrapped(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def maybe_last(*arguments: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                if name in ("write", "pwrite"):
                    descriptor, content, *rest = arguments
                    call(descriptor, bytes(content)[: len(content) // 2], *rest)
                os._exit(DIED)
            return call(*arguments)

        return maybe_last

    for name in CALLS:
        setattr(os, name, wrapped(name, getattr(os, name)))


def main(home: Path, count: int) -> None:
    sealer = Sealer(
        AuditPlaces(folder=home / "audit"), home / "keys", Pseudonymizer(), SegmentLimits(records=4)
    )
    dying_at(count)
    collector = Collector(home / "gateway" / "spool", sealer, lambda: True)
    while collector.step():
        pass
    collector.close()
    sealer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
