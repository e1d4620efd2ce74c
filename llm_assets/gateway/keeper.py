"""The keeper: a process beside the gateway that tells it what changed.

    python -m llm_assets.gateway.keeper

It follows the catalog (`tenants.jsonl`), fetches the keys of token issuers (`xds/jwt.json`) and asks the
gateway for its health every second, upon which the gateway also counts the requests whose clients went away.
It looks at vLLM's servers every `SERVERS_S` seconds: one that died gets no requests any more, one that hangs
is killed (`resources/local/serving/watching.py`); `llm-assets up` starts both again.
The gateway answers without it: what it was told last goes on. It ends on SIGTERM, and with exit code 1 on a
fault that it does not know, which its log tells.
"""

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial

from llm_assets.gateway.catalog_changes import CatalogChanges
from llm_assets.gateway.folder import jwt_filter_file, tenants_journal
from llm_assets.gateway.listening import Health
from llm_assets.gateway.tenants import issuers_in_force, issuers_of, publish_tenants, tenant_lines
from llm_assets.installation.profiles import Profile, profile_of
from llm_assets.installation.settings import Settings, find_settings
from resources.gateway.errors import GatewayError
from resources.gateway.jwt_filter import Issuer, jwt_filter, read_key_sets, write_jwt_filter
from resources.gateway.key_set_refresh import KeySetRefresh
from resources.seams.serving import ServingError
from resources.seams.state import StateError, TurnTakenError

LOOK_S = 1.0
SERVERS_S = 5.0

log = logging.getLogger("keeper")


@dataclass(kw_only=True)
class Keeper:
    """What is followed, each in a thread of its own, so that a slow issuer delays no tenant."""

    settings: Settings
    look_s: float = LOOK_S
    _ended: threading.Event = field(default_factory=threading.Event)
    _issuers: tuple[Issuer, ...] | None = None

    def run(self) -> None:
        """Returns once `end` was called. Raises what a thread did not expect."""
        with ThreadPoolExecutor() as threads:
            jobs = (self.follow_catalog, self.follow_issuers, self.follow_health, self.follow_servers)
            running = [threads.submit(job) for job in jobs]
            wait(running, return_when=FIRST_EXCEPTION)
            self.end()
        for each in running:
            each.result()

    def end(self) -> None:
        self._ended.set()

    def follow_catalog(self) -> None:
        journal, written = tenants_journal(self.settings), False
        changes = CatalogChanges(
            folder=self.settings.catalog, say=log.error, in_force=partial(issuers_in_force, journal)
        )

        def look() -> None:
            nonlocal written
            if not changes.look() and written:
                return
            written = False
            if changes.read:
                changed = publish_tenants(journal, changes)
                if changed:
                    log.info("Tenants that changed: %s.", _listed(changed))
            self._issuers = issuers_of(tenant_lines(journal), changes.folder)
            written = True

        self._repeat(look)

    def follow_issuers(self) -> None:
        file = jwt_filter_file(self.settings)
        keys = KeySetRefresh(log=log.warning, key_sets=read_key_sets(file))

        def look() -> None:
            issuers = self._issuers
            if issuers is None:  # nobody looked yet; what the file says goes on
                return
            keys.look(issuers, time.monotonic())
            if write_jwt_filter(file, jwt_filter(issuers, keys.key_sets)):
                known = [issuer.name for issuer in issuers if issuer.provider in keys.key_sets]
                log.info("Issuers whose tokens count: %s.", _listed(known))

        try:
            self._repeat(look)
        finally:
            keys.close()

    def follow_health(self) -> None:
        well: bool | None = None
        with closing(Health(self.settings)) as health:

            def ask() -> None:
                nonlocal well
                fault = health.fault()
                if well is not (fault is None):
                    log.info(
                        "The gateway is well." if fault is None else f"The gateway is not well: {fault}."
                    )
                well = fault is None

            self._repeat(ask)

    def follow_servers(self) -> None:
        profile = profile_of(self.settings)
        told: set[str] = set()

        def look() -> None:
            end_those_that_hang()
            faulty = [route for route in profile.serving.routes() if route.dead]
            for route in faulty:
                if route.why not in told:
                    self._leave_out_the_dead(profile, route.tenant, route.model)
            told.clear()
            told.update(route.why for route in faulty)

        with profile.serving.watching(log.error) as end_those_that_hang:
            self._repeat(look, SERVERS_S)

    def _leave_out_the_dead(self, profile: Profile, tenant: str, model: str) -> None:
        """A deploy or stop that is under way does that by itself."""
        doing = "leaving out a dead server"
        with (
            suppress(TurnTakenError),
            profile.state.turn(tenant, model, "deploy", doing=doing, say=log.info, timeout_s=0),
        ):
            profile.gateway.publish(profile.serving.route(tenant, model))

    def _repeat(self, look: Callable[[], None], every_s: float | None = None) -> None:
        """Every `look_s` (or `every_s`) until the end. A known fault is told once while it is the same."""
        told = ""
        while not self._ended.is_set():
            fault = ""
            try:
                look()
            except (GatewayError, ServingError, StateError, OSError) as error:
                fault = str(error)
                if fault != told:
                    log.error("%s", fault)
            told = fault
            self._ended.wait(every_s or self.look_s)


def _listed(names: list[str] | tuple[str, ...], at_most: int = 10) -> str:
    more = f" and {len(names) - at_most:,} more" if len(names) > at_most else ""
    return (", ".join(names[:at_most]) or "none") + more


def main() -> int:
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr, force=True
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    keeper = Keeper(settings=find_settings())
    signal.signal(signal.SIGTERM, lambda *_: keeper.end())
    signal.signal(signal.SIGINT, lambda *_: keeper.end())
    try:
        keeper.run()
    except Exception:  # the last line of a process: nobody else would tell
        log.exception("The keeper ends: a fault that it does not know.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
