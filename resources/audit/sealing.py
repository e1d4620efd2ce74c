"""From exchanges to sealed records, tenant by tenant, and records that the platform itself makes (events)."""

import logging
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from resources.audit.chain import Chain, Sealed, SegmentLimits, iso
from resources.audit.index import AuditIndex
from resources.audit.joining import Exchange
from resources.audit.places import AuditError, AuditPlaces
from resources.audit.records import Pseudonymize, record_of, tenant_of
from resources.audit.run_time import Clocks, RunTime
from resources.audit.statements import Signing
from resources.audit.subject_keys import SubjectKeys

SYNCING_THREADS = 4
"""Tenants whose batches are on their way to the disk at once: a disk syncs several files in the time of one.
"""

Draft = Callable[[SubjectKeys], dict[str, object] | None]
"""A record but for its place in the chain, given the keys of its tenant's subjects; None: there is none."""

_log = logging.getLogger(__name__)


class Sealer:
    """Seals into the chains of one audit log."""

    def __init__(
        self,
        places: AuditPlaces,
        signing_keys: Path,
        pseudonymize: Pseudonymize,
        limits: SegmentLimits | None = None,
        clocks: Clocks | None = None,
    ) -> None:
        self.places, self.signing = places, Signing(signing_keys)
        self.run_time = RunTime(places=places, signing=self.signing, clocks=clocks or Clocks())
        self.index = AuditIndex(places)
        self._pseudonymize, self._limits = pseudonymize, limits or SegmentLimits()
        self._chains: dict[str, Chain] = {}
        self._keys: dict[str, SubjectKeys] = {}
        self._threads = ThreadPoolExecutor(SYNCING_THREADS)

    def seal(self, exchanges: Sequence[Exchange]) -> tuple[list[Exchange], list[AuditError]]:
        """Those that are on the disk now, and why others are not."""
        by_tenant: dict[str, list[Exchange]] = {}
        for exchange in exchanges:
            by_tenant.setdefault(tenant_of(exchange), []).append(exchange)
        sealed: list[Exchange] = []
        faults: list[AuditError] = []
        several = len(by_tenant) > SYNCING_THREADS  # for few, threads cost more than they save
        outcomes = list((self._threads.map if several else map)(self._try, by_tenant.items()))
        for (tenant, batch), outcome in zip(by_tenant.items(), outcomes, strict=True):
            if isinstance(outcome, AuditError):
                faults.append(outcome)
            else:
                self.index.add(tenant, outcome)
                sealed += batch
        return sealed, faults

    def _try(self, batch: tuple[str, list[Exchange]]) -> Sealed | AuditError:
        tenant, exchanges = batch
        try:
            return self._seal(tenant, [self._draft(exchange) for exchange in exchanges])
        except AuditError as error:
            return error
        except OSError as error:
            return AuditError(
                f"The audit log of {tenant} could not be written: {error}. Make room on that disk."
            )

    def _draft(self, exchange: Exchange) -> Draft:
        def draft(keys: SubjectKeys) -> dict[str, object]:
            try:
                return record_of(exchange, keys, self._pseudonymize)
            except (TypeError, ValueError, KeyError, OverflowError) as error:
                kind = type(error).__name__  # its text could hold what was said
                _log.error("%s has fields of a form that no gateway writes: %s", exchange.id, kind)
                return record_of(Exchange(None, None, exchange.lines), keys, self._pseudonymize)

        return draft

    def seal_one(self, tenant: str, draft: Draft) -> bool:
        """Seals one record, if the draft makes one.

        Raises:
            AuditError: The disk does not take it.
        """
        sealed = self._seal(tenant, [draft])
        self.index.add(tenant, sealed)
        return bool(sealed.records)

    def record_event(self, tenant: str, event: str, *, id: str | None = None, **facts: Any) -> None:
        """Seals one record of what somebody did: `event` is its name, `facts` hold nothing personal."""
        content = {"kind": "event", "event": event, "at": iso(self.run_time.clocks.now()), **facts}
        content["id"] = id or f"event-{uuid.uuid4()}"
        self.seal_one(tenant, lambda _: content)

    def erase(self, tenant: str, name: str, *, by: str, reason: str) -> bool:
        """Destroys a subject's key, once the chain says so; False where there is no such subject."""
        self.places.pair_keys()
        with self.places.lock(tenant):
            keys = self._keys_of(tenant)
            keys.begin()
            subject = keys.find(name)
            if subject is None:
                return False
            event = {"kind": "event", "event": "erasure", "id": f"event-{uuid.uuid4()}", "by": by}
            record: dict[str, object] = {
                **event,
                "at": iso(self.run_time.clocks.now()),
                "reason": reason,
                "subject": subject.pseudonym,
            }
            sealed = self._chain(tenant).append([record])
            keys.erase(name)
        self.index.add(tenant, sealed)
        return True

    def take_back_unsigned(self) -> list[str]:
        """Cuts off what a kill left behind the signed end of each chain; the tenants where it could."""
        done = []
        for tenant in self.places.tenants():
            try:
                with self.places.lock(tenant):
                    self._chain(tenant).take_back()
                done.append(tenant)
            except (AuditError, OSError) as fault:  # the other tenants' go on
                _log.error("%s", fault)
        return done

    def close_due(self, now: float) -> None:
        """Closes the open segments that are old, of every tenant.

        Raises:
            AuditError, OSError: One could not be closed; the others were.
        """
        faults: list[Exception] = []
        for tenant in self.places.tenants():
            try:
                with self.places.lock(tenant):
                    self._chain(tenant).close_if_due(now)
            except (AuditError, OSError) as fault:
                faults.append(fault)
        if faults:
            raise faults[0]

    def close(self) -> None:
        self._threads.shutdown()
        self.index.close()

    def _seal(self, tenant: str, drafts: Sequence[Draft]) -> Sealed:
        self.places.pair_keys()
        with self.places.lock(tenant):
            keys = self._keys_of(tenant)
            keys.begin()
            try:
                records = [record for draft in drafts if (record := draft(keys)) is not None]
                keys.settle()
                return self._chain(tenant).append(records)
            except (OSError, AuditError):
                keys.abandon()
                raise

    def _chain(self, tenant: str) -> Chain:
        if tenant not in self._chains:
            self._chains[tenant] = Chain(self.places, tenant, self.signing, self.run_time, self._limits)
        return self._chains[tenant]

    def _keys_of(self, tenant: str) -> SubjectKeys:
        if tenant not in self._keys:
            self._keys[tenant] = SubjectKeys(self.places.keys(tenant))
        return self._keys[tenant]
