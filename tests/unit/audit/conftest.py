"""An audit log of its own for each test, fed by a spool writer that stands in for the gateway."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from resources.audit.chain import SegmentLimits
from resources.audit.collecting import Collector
from resources.audit.personal_text import Pseudonymizer
from resources.audit.places import AuditPlaces
from resources.audit.records import Pseudonymize
from resources.audit.run_time import Clocks
from resources.audit.sealing import Sealer
from resources.audit.segments import lines_in, record_in, segments_in
from resources.audit.verifying import Fault, verify_tenant
from tests.unit.audit.spooling import GatewaySpool


@dataclass
class Log:
    """One installation's audit log and the spool in front of it."""

    home: Path
    limits: SegmentLimits = SegmentLimits()  # noqa: RUF009  frozen
    gateway_alive: bool = True
    pseudonymize: Pseudonymize = field(default_factory=Pseudonymizer)
    clocks: Clocks = Clocks()  # noqa: RUF009  frozen
    _opened: list[Collector | Sealer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.places = AuditPlaces(folder=self.home / "audit")
        self.spool = GatewaySpool(self.home / "gateway" / "spool")
        self.begin()

    def begin(self) -> None:
        """As a collector that is started anew."""
        self.sealer = Sealer(self.places, self.home / "keys", self.pseudonymize, self.limits, self.clocks)
        folder = self.home / "gateway" / "spool"
        self.collector = Collector(folder, self.sealer, lambda: self.gateway_alive)
        self._opened += [self.collector, self.sealer]

    def close(self) -> None:
        self.spool.close()
        for each in self._opened:
            each.close()
        self._opened.clear()

    def collect(self) -> int:
        before = self.collector.sealed
        while self.collector.step():
            pass
        return self.collector.sealed - before

    def records(self, tenant: str = "team-a") -> list[dict[str, Any]]:
        segments = segments_in(self.places.log(tenant))
        return [record_in(line) for segment in segments for line in lines_in(segment.path)]

    def faults(self, tenant: str = "team-a") -> tuple[Fault, ...]:
        return verify_tenant(self.places, tenant, self.sealer.signing).faults

    def fill(self, count: int, tenant: str = "team-a", **given: Any) -> list[str]:
        """Exchanges that are sealed; their ids."""
        ids = [self.spool.exchange(tenant, **given) for _ in range(count)]
        self.collect()
        return ids


MakeLog = Callable[..., Log]


@pytest.fixture
def make_log(tmp_path: Path) -> Iterator[MakeLog]:
    made: list[Log] = []

    def make(home: Path | None = None, **given: Any) -> Log:
        made.append(Log(home or tmp_path / f"home-{len(made)}", **given))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def log(make_log: MakeLog) -> Log:
    return make_log()
