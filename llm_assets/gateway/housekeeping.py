"""What the collector does beside sealing, each in a thread of its own, so that nothing of it delays a record.

Closing old segments, events of keys, the index, retention; the segments' way into the artifact store; Loki;
Google Cloud Logging. What fails says so once, and again when it works.
"""

import logging
import sqlite3
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager

from llm_assets.audit_log import audit_places, sealer_of
from llm_assets.catalog.loading import load_catalog
from llm_assets.catalog.mistakes import CatalogError
from llm_assets.catalog.tenants import LEAST_RETENTION_DAYS, TenantEntry
from llm_assets.installation.settings import Settings
from resources.audit.cloud_logging import CloudLogging
from resources.audit.journal_events import JournalEvents, key_facts, route_facts
from resources.audit.loki import Loki
from resources.audit.places import PLATFORM, AuditError
from resources.audit.publishing import Publisher
from resources.audit.retention import Keeping, delete_due
from resources.audit.sealing import Sealer
from resources.audit.shipping import Shipper, ShippingError
from resources.audit.statements import Signing
from resources.object_stores.objects import ObjectStoreError
from resources.object_stores.opening import open_object_store

KEYS_S, UPKEEP_S, RETENTION_S, STORE_S, SHIPPING_S = 1.0, 60.0, 3600.0, 60.0, 2.0
AGAIN_S, ENDING_S = 5.0, 10.0
CLOCK_STEP_S = 5.0
"""More than any correction that a time server makes bit by bit in a minute."""

FAULTS = (AuditError, CatalogError, ObjectStoreError, ShippingError, OSError, sqlite3.Error)

_log = logging.getLogger(__name__)


@contextmanager
def housekeeping(settings: Settings, ending: threading.Event) -> Iterator[None]:
    """Runs while the block runs, until `ending` is set."""
    works = [_Upkeep, _Publishing, *([_ToLoki] if settings.loki_url else [])]
    works += [_ToCloudLogging] if settings.audit_stdout else []
    threads = [threading.Thread(target=_work, args=(work, settings, ending), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(ENDING_S)


def _work(work: "type[_Work]", settings: Settings, ending: threading.Event) -> None:
    told = _Told(work.__name__.strip("_"))
    doing = None
    while doing is None and not ending.is_set():
        with told:
            doing = work(settings)
        if doing is None:
            ending.wait(AGAIN_S)
    if doing is None:
        return
    with closing(doing):
        while not ending.wait(AGAIN_S if told.failing else doing.pause_s):
            with told:
                doing.step()


class _Told:
    """Says the first failure of several in a row, and when it works again."""

    def __init__(self, name: str) -> None:
        self._name, self.failing = name, False

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if isinstance(error, FAULTS) and not self.failing:
            _log.error("%s: %s", self._name, error)
        if error is None and self.failing:
            _log.info("%s works again.", self._name)
        self.failing = error is not None
        return isinstance(error, FAULTS)


class _Work(ABC):
    """Something that is done again and again."""

    pause_s = SHIPPING_S

    def __init__(self, settings: Settings) -> None:
        self.settings, self.places = settings, audit_places(settings)

    @abstractmethod
    def step(self) -> None: ...

    def close(self) -> None:  # noqa: B027  most works hold nothing open
        """Nothing is held open."""


class _Upkeep(_Work):
    """Events of keys and routes at once; segments, index and retention now and then."""

    pause_s = KEYS_S

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._sealer = sealer_of(settings)
        journals = settings.home / "gateway"
        self._keys = JournalEvents(journals / "keys.jsonl", self._sealer, key_facts)
        self._routes = JournalEvents(journals / "routes.jsonl", self._sealer, route_facts)
        self._upkept = self._retained = 0.0

    def step(self) -> None:
        now = time.monotonic()
        self._keys.follow()
        self._routes.follow()
        if now - self._upkept >= UPKEEP_S:
            self._upkept = now
            self._look_at_the_clock()
            self._sealer.close_due(time.time())
            self._sealer.index.catch_up()
        if now - self._retained >= RETENTION_S:
            self._retained = now
            delete_due_of_all(self.settings, self._sealer)

    def _look_at_the_clock(self) -> None:
        """A time of day that was set is told, and on the record: the times of records are its."""
        step_s = self._sealer.run_time.tick()
        if abs(step_s) >= CLOCK_STEP_S:
            said = (
                "The machine's clock was set by %+.0f s. Records keep the order in which they were sealed; "
            )
            _log.critical(said + "retention counts the time that the installation has run as well.", step_s)
            self._sealer.record_event(PLATFORM, "clock_step", seconds=round(step_s, 3), by="llm-assets")

    def close(self) -> None:
        self._sealer.close()


def delete_due_of_all(settings: Settings, sealer: Sealer) -> int:
    """Deletes what is due, of the tenants in the catalog; who is in it no more keeps everything."""
    tenants, count = load_catalog(settings.catalog).tenants, 0
    for name in sealer.places.tenants():
        if name in tenants:
            count += delete_due(sealer, name, keeping_of(tenants[name]))
        elif name == PLATFORM:
            count += delete_due(sealer, name, Keeping(days=LEAST_RETENTION_DAYS))
    return count


def keeping_of(tenant: TenantEntry) -> Keeping:
    return Keeping(
        days=tenant.retention_days,
        days_by_risk_class={str(each): days for each, days in tenant.retention_days_by_risk_class.items()},
        legal_hold=tenant.legal_hold,
    )


class _Publishing(_Work):
    """Closed segments and heads, into the artifact store."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        store = open_object_store(settings.audit_store_url)
        self._publisher = Publisher(self.places, store, Signing(settings.keys))
        self._published = -STORE_S

    def step(self) -> None:
        if time.monotonic() - self._published >= STORE_S:
            self._published = time.monotonic()
            self._publisher.publish()


class _ToLoki(_Work):
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._loki = Loki(settings.loki_url or "")
        self._shipper = Shipper(self.places, "loki", self._loki.send)

    def step(self) -> None:
        self._shipper.ship()

    def close(self) -> None:
        self._loki.close()


class _ToCloudLogging(_Work):
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._shipper = Shipper(self.places, "cloud-logging", CloudLogging(sys.stdout).send)

    def step(self) -> None:
        self._shipper.ship()
