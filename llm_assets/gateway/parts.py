"""The gateway as a part of the local stack: Envoy, and the processes beside it, started and ended as one.

The keeper tells the gateway what the catalog says, the collector seals what it writes down. The gateway
answers without either: what it was told last goes on, and what it wrote lies safe until it is collected.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from llm_assets.gateway.folder import TENANTS_FILE
from llm_assets.gateway.listening import gateway_settings
from llm_assets.installation.settings import Settings
from llm_assets.supervision import Part, first_fault
from resources.gateway.envoy import NAME, EnvoyGateway
from resources.gateway.errors import GatewayError
from resources.processes.local_processes import LocalProcesses, ProcessError, ProcessRecord
from resources.waiting import WaitError, wait_until

if TYPE_CHECKING:
    from llm_assets.installation.profiles import Profile

BESIDE = ("keeper", "collector")
"""Modules of this package that run as processes beside Envoy."""

READY_S = 60
STOP_S = 30  # the collector seals what is there before it ends


def gateway_of(settings: Settings) -> EnvoyGateway:
    """The gateway of an installation, whether it runs or not.

    Raises:
        GatewayError: The settings do not fit together.
    """
    return EnvoyGateway(settings=gateway_settings(settings))


@dataclass(frozen=True, kw_only=True)
class GatewayParts:
    """All processes of one installation's gateway."""

    profile: "Profile"

    @property
    def settings(self) -> Settings:
        return self.profile.settings

    @property
    def envoy(self) -> EnvoyGateway:
        return gateway_of(self.settings)

    @property
    def processes(self) -> LocalProcesses:
        return LocalProcesses(self.settings.processes)

    def start(self) -> None:
        """Starts what is not running, with everything that is live told to it anew. Waits for nothing.

        Raises:
            GatewayError: A port is taken, or a setting makes no sense.
        """
        with self.processes.starting(NAME):
            self._start()

    def start_where_none_runs(self) -> None:
        """As `start`; one that runs is left alone."""
        with self.processes.starting(NAME):
            if not self.envoy.running():
                self._start()

    def _start(self) -> None:
        self.profile.gateway.publish_all(self.profile.serving.routes())
        self.envoy.start()
        for module in BESIDE:
            self._start_beside(module)

    def _start_beside(self, module: str) -> None:
        if self._running(module):
            return
        settings = self.settings
        own = {
            "LLM_ASSETS_ROOT": str(settings.root),
            "LLM_ASSETS_CATALOG": settings.catalog_at,
            "LLM_ASSETS_HOME": str(settings.home),
        }
        try:
            self.processes.start(
                _name(module),
                command=(sys.executable, "-P", "-m", f"llm_assets.gateway.{module}"),
                env={**os.environ, **own},
                log=settings.gateway / f"{module}.log",
                attributes={},
            )
        except ProcessError as fault:
            raise GatewayError(f"The gateway's {module}: {fault}") from fault

    def wait_ready(self) -> None:
        """Waits until requests are answered, and the gateway knows every tenant of the catalog.

        Raises:
            GatewayError: A part ended, or was not up in time.
        """
        envoy = self.envoy
        envoy.wait_ready()
        tenants = envoy.folder / TENANTS_FILE
        try:
            wait_until(
                tenants.exists,
                what="the gateway's list of tenants",
                timeout_s=READY_S,
                failed=lambda: first_fault(self.parts()),
            )
        except WaitError as fault:
            raise GatewayError(str(fault)) from fault

    def parts(self) -> Iterator[Part]:
        """What has to run, each with how it is started again when it died."""
        processes = self.processes
        yield Part(
            name="the gateway",
            fault=partial(processes.fault, NAME, what="The gateway"),
            start=self.envoy.start,
            faults=(GatewayError,),
        )
        for module in BESIDE:
            yield Part(
                name=f"the gateway's {module}",
                fault=partial(processes.fault, _name(module), what=f"The gateway's {module}"),
                start=partial(self._start_beside, module),
                faults=(GatewayError,),
            )

    def stop(self) -> None:
        """Ends everything, Envoy first, so that what it wrote last is collected."""
        for name in (NAME, *(_name(module) for module in BESIDE)):
            self.processes.stop(name, timeout_s=STOP_S)

    def _running(self, module: str) -> ProcessRecord | None:
        record = self.processes.find(_name(module))
        return record if record and self.processes.alive(record) else None


def _name(module: str) -> str:
    return f"{NAME}-{module}"
