"""How long an installation has run, by a clock that nobody can set.

The time of day may be wrong, and somebody may set it: 200 days ahead, every retention would be over at once.
So a second time is kept: the seconds of CLOCK_BOOTTIME, over all boots of the machine and all runs of the
collector, in a signed file beside the log. It stands in each seal, and what is deleted is due by both. Not
counted are the time that a machine is off and up to a minute before: one that is often off keeps its records
for longer. Who puts an older file there, or takes it away, only delays deletions.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resources.audit.places import AuditError, AuditPlaces
from resources.audit.statements import Signing
from resources.durable_files import replace_file

_log = logging.getLogger(__name__)


def _boot_id() -> str:
    """Another one each time that the kernel begins; '' where a container does not show it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _up_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, kw_only=True)
class Clocks:
    """Those of a machine: the time of day, the seconds since it began, and which beginning that was."""

    now: Callable[[], float] = time.time
    up_s: Callable[[], float] = _up_s
    boot: Callable[[], str] = _boot_id


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Epoch seconds by the time of day, and seconds that the installation has run."""

    at: float
    ran_s: float


@dataclass(frozen=True, kw_only=True)
class RunTime:
    """That of one audit log. The collector alone ticks; anybody may ask."""

    places: AuditPlaces
    signing: Signing
    clocks: Clocks = field(default_factory=Clocks)

    def moment(self) -> Moment:
        kept = self._kept()
        return Moment(at=self.clocks.now(), ran_s=float(kept["ran_s"]) + self._since(kept) if kept else 0.0)

    def tick(self) -> float:
        """Keeps how long it has run, and says how far the time of day was set since the last tick (seconds).

        Over a new beginning of the machine, only that it was set back is known.
        """
        kept, now = self._kept(), self.clocks.now()
        ran_s, step_s = 0.0, 0.0
        if kept:
            elapsed_s = self._since(kept)
            passed_s = now - float(kept["at"])
            ran_s = float(kept["ran_s"]) + elapsed_s
            step_s = passed_s - elapsed_s if self._same_boot(kept) else min(passed_s, 0.0)
        stated = {"kind": "run_time", "ran_s": ran_s, "at": now}
        stated |= {"up_s": self.clocks.up_s(), "boot": self.clocks.boot()}
        replace_file(self.places.run_time, self.signing.signed(stated))
        return step_s

    def _since(self, kept: dict[str, Any]) -> float:
        """What the machine counted since; nothing is known of the time before it began anew."""
        return self.clocks.up_s() - float(kept["up_s"]) if self._same_boot(kept) else 0.0

    def _same_boot(self, kept: dict[str, Any]) -> bool:
        return kept["boot"] == self.clocks.boot() and self.clocks.up_s() >= float(kept["up_s"])

    def _kept(self) -> dict[str, Any] | None:
        try:
            kept = self.signing.verified(self.places.run_time.read_bytes(), str(self.places.run_time))
            return kept if kept.get("kind") == "run_time" else None
        except FileNotFoundError:
            return None
        except AuditError as error:
            _log.critical(
                "%s. How long this installation has run is counted anew; nothing is due before.", error
            )
            return None
