"""The collector: reads the gateway's spool, seals what is whole, and takes it out of the spool.

May be killed at any byte. What is on the disk is then still in the spool as well; starting anew, it asks the
index about every id that it finds there and so seals nothing twice. Where the disk takes nothing it says so,
reads no further, and tries again: the spool grows meanwhile, in the gateway's hands.
"""

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from resources.audit.joining import Exchange, Joiner
from resources.audit.places import AuditError
from resources.audit.sealing import Sealer
from resources.audit.spool import CHUNK_BYTES, Spool, SpoolFile, SpoolLine

WAITING_EXCHANGES = 20_000
"""Kept in memory while a tenant's chain cannot be written; beyond that nothing more is read."""

LOOK_S = 1.0
"""How often is asked whether the gateway still runs, and whether the index lags."""

_log = logging.getLogger(__name__)


class Collector:
    """One pass at a time; `step` until it says that there is nothing to do."""

    def __init__(
        self,
        spool: Path,
        sealer: Sealer,
        gateway_alive: Callable[[], bool],
        count: Callable[[Exchange], None] = lambda _: None,
    ) -> None:
        """`count` is told of each exchange, once, whether or not it can be sealed."""
        self._spool, self._sealer, self._gateway_alive = Spool(spool), sealer, gateway_alive
        self._count = count
        self._joiner = Joiner()
        self._waiting: list[Exchange] = []
        self.sealed = 0  # records, by this collector
        self._gateway_gone = False
        self._looked_at = 0.0
        sealer.index.catch_up(sealer.take_back_unsigned())  # nothing unsigned is called sealed

    def step(self) -> bool:
        """Whether there was anything to do."""
        self._spool.look()
        read, before = 0, self.sealed
        if len(self._waiting) < WAITING_EXCHANGES:
            alive = self._spool.boots_alive() if self._joiner else {}  # before what they wrote last is read
            read = self._read()
            if self._joiner:
                for exchange in self._joiner.interrupted(self._boot_is_over(alive, idle=not read)):
                    self._keep(exchange)
        self._seal()
        return read > 0 or self.sealed > before

    def _read(self) -> int:
        count = 0
        for line in self._spool.read():
            count += 1
            if self._sealed_before(line):
                line.file.blank([(line.offset, line.size)])
            elif (exchange := self._joiner.take(line)) is not None:
                if self._ended_twice(exchange):
                    line.file.blank([(line.offset, line.size)])
                else:
                    self._keep(exchange)
        return count

    def _keep(self, exchange: Exchange) -> None:
        self._waiting.append(exchange)
        self._count(exchange)

    def _ended_twice(self, exchange: Exchange) -> bool:
        """An end whose request has its record already."""
        if exchange.request is not None or exchange.end is None or exchange.end["e"] == "denied":
            return False
        id = exchange.id
        twice = any(each.id == id for each in self._waiting) or self._sealer.index.find(id) is not None
        if twice:
            _log.warning("The gateway ended %s twice; the second end is not kept: %s", id, exchange.end["e"])
        return twice

    def _sealed_before(self, line: SpoolLine) -> bool:
        """Asked of what lay there when the file was opened: whoever was killed may have sealed it."""
        if line.offset >= line.file.size_at_start:
            return False
        id = str(line.event["id"]) if line.event else Exchange(None, None, (line,)).id
        return self._sealer.index.find(id) is not None

    def _boot_is_over(self, alive: dict[int, bool | None], *, idle: bool) -> Callable[[SpoolFile], bool]:
        """Nothing more comes: the boot's gateway is gone, and all is read.

        Where the lock that tells it is missing: a later boot writes, or no gateway answers.
        """
        newest, unread = self._spool.newest_boot(), self._spool.boots_unread()
        gone = (
            idle and self._spool.all_opened and self._gateway_gone
        )  # known before the read that found nothing
        self._look()

        def over(file: SpoolFile) -> bool:
            if (lives := alive.get(file.boot, True)) is not None:
                return not lives and file.boot not in unread
            return (file.boot < newest and file.boot not in unread) or gone

        return over

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self._gateway_gone = not self._gateway_alive()

    def _seal(self) -> None:
        if not self._waiting:
            self._spool.clear()
            return
        sealed, faults = self._sealer.seal(self._waiting)
        self._blank(sealed)
        self._spool.clear()
        if faults:
            done = {id(exchange) for exchange in sealed}
            self._waiting = [exchange for exchange in self._waiting if id(exchange) not in done]
            self._say(faults)
        else:
            self._waiting = []
        self.sealed += len(sealed)

    def _say(self, faults: Iterable[AuditError]) -> None:
        for fault in faults:
            _log.error("%s", fault)

    def _blank(self, sealed: Iterable[Exchange]) -> None:
        by_file: dict[SpoolFile, list[tuple[int, int]]] = {}
        for exchange in sealed:
            for line in exchange.lines:
                by_file.setdefault(line.file, []).append((line.offset, line.size))
        for file, places in by_file.items():
            file.blank(places)

    @property
    def pressed(self) -> bool:
        """Whether there is a whole batch to be read; with less it is cheaper to wait for more."""
        return self._spool.unread_bytes() >= CHUNK_BYTES

    @property
    def behind(self) -> int:
        """Exchanges that could not be sealed yet."""
        return len(self._waiting)

    def close(self) -> None:
        self._spool.close()
