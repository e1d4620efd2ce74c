"""The local stack, started and stopped as one: MLflow, the Dagster UI and daemon, live servers, the gateway.

Every process is recorded by `LocalProcesses`, so whoever comes later (`down`, another `up`) finds
what is running, also after the terminal that started it was killed.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from llm_assets.automation import AUTOMATION
from llm_assets.catalog.loading import Catalog, load_catalog
from llm_assets.catalog.mistakes import CatalogError
from llm_assets.gateway.parts import GatewayParts
from llm_assets.installation.profiles import Profile
from llm_assets.installation.settings import Settings
from llm_assets.loaded_locations import LoadedLocations
from llm_assets.runs import dagster_instance, end_abandoned_runs
from llm_assets.servings import VersionShare, publish, serving_of
from llm_assets.supervision import Part
from resources.artifact_store.artifacts import ArtifactError
from resources.consoles.consoles import Console
from resources.dagster_ui.console import command, dagster_console
from resources.engines.installation import EngineError
from resources.gateway.errors import GatewayError
from resources.mlflow.client import RegistryError
from resources.mlflow.server import MlflowServer
from resources.object_stores.objects import ObjectStoreError
from resources.processes.local_processes import (
    LocalProcesses,
    ProcessError,
    ProcessRecord,
    require_free_port,
)
from resources.seams.serving import Backend, Serving, ServingError
from resources.seams.state import StateError, TurnTakenError
from resources.signing.signatures import SignatureError
from resources.waiting import wait_until

FAULTS = (
    ServingError,
    StateError,
    GatewayError,
    ArtifactError,
    SignatureError,
    ObjectStoreError,
    EngineError,
    CatalogError,
)
"""What may keep one deployment from being live again."""
STARTS = (ProcessError, RegistryError)
"""What may keep MLflow or the UI from being started."""

UI = "dagster-ui"
UI_READY_S = 120
STOP_S = 20
STOP_TURN_S = 60


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The embedded services of one installation."""

    profile: Profile

    @property
    def settings(self) -> Settings:
        return self.profile.settings

    @property
    def gateway(self) -> GatewayParts:
        return GatewayParts(profile=self.profile)

    @property
    def processes(self) -> LocalProcesses:
        return LocalProcesses(self.settings.processes)

    @property
    def ui_console(self) -> Console:
        settings = self.settings
        folder = settings.dagster_home / "ui"
        return dagster_console(port=settings.ui_port, folder=folder, tokens=settings.console_tokens)

    def start(self, *, automation: bool) -> None:
        """Starts what is not running yet and returns without waiting for it."""
        self.gateway.start()
        self.profile.mlflow.start()
        with dagster_instance(self.settings) as instance:  # makes Dagster's tables before several open them
            end_abandoned_runs(instance, self.profile.state)
        ui = self.ui()
        if ui and automation and not ui.attributes["automation"]:  # the demo left it with its sensors off
            self.processes.stop(UI, timeout_s=STOP_S)
            ui = None
        if ui is None:
            self._start_ui(automation=automation)

    def _start_ui(self, *, automation: bool) -> None:
        require_free_port(self.settings.ui_port, what="The Dagster UI", setting="LLM_ASSETS_UI_PORT")
        self.processes.start(
            UI,
            command=command(self.ui_console, self.settings.root / "workspace.yaml"),
            env={**os.environ, AUTOMATION: "on" if automation else "off"},
            log=self.settings.dagster_home / "ui.log",
            attributes={"port": self.settings.ui_port, "automation": automation},
        )

    def ui(self) -> ProcessRecord | None:
        record = self.processes.find(UI)
        return record if record and self.processes.alive(record) else None

    @property
    def locations(self) -> LoadedLocations:
        """What the UI shows; asked while it runs, at the port that it was started with."""
        ui = self.ui()
        port = ui.attributes["port"] if ui else self.settings.ui_port
        console = replace(self.ui_console, port=port)
        return LoadedLocations(address=console.url, headers=console.headers())

    def wait_ready(self) -> None:
        """Until everything answers and the UI has its definitions, or knows why it has none.

        Raises:
            WaitError: The UI died while starting, or was not ready in time.
        """
        self.gateway.wait_ready()
        self.profile.mlflow.wait_ready()
        wait_until(
            self.locations.settled,
            what=f"the Dagster UI at {self.ui_console.url}",
            timeout_s=UI_READY_S,
            failed=self._ui_fault,
        )

    def parts(self, *, automation: bool, say: Callable[[str], None]) -> Iterator[Part]:
        """What has to run, each with how it is started again when it died. None depends on another."""
        yield from self.gateway.parts()
        mlflow = self.profile.mlflow
        if isinstance(mlflow, MlflowServer):
            yield Part(name="MLflow", fault=mlflow.fault, start=mlflow.start_again, faults=STARTS)
        yield Part(
            name="the Dagster UI",
            fault=self._ui_fault,
            start=partial(self._start_ui_again, automation=automation),
            faults=STARTS,
        )
        for route in self.profile.serving.routes():
            if route.dead:
                yield Part(
                    name=f"{route.tenant}/{route.model}",
                    fault=partial(str, route.why),
                    start=partial(self._start_deployment_again, route.tenant, route.model, say),
                    faults=FAULTS,
                )

    def _ui_fault(self) -> str | None:
        return self.processes.fault(UI, what="The Dagster UI")

    def _start_ui_again(self, *, automation: bool) -> None:
        self.processes.stop(UI, timeout_s=STOP_S)  # what is left of it holds its port
        self._start_ui(automation=automation)

    def _start_deployment_again(self, tenant: str, model: str, say: Callable[[str], None]) -> None:
        catalog = load_catalog(self.settings.catalog)
        entry = catalog.tenants.get(tenant)
        if entry and model in entry.models:
            self._revive(catalog, tenant, model, say)
        else:
            self._stop_deployment(tenant, model)
            say(f"{tenant}/{model} is no longer in the catalog and stays stopped.")

    def revive(self, catalog: Catalog, say: Callable[[str], None]) -> None:
        """Starts again, verified anew, what was live when the stack was ended and is still in the catalog.

        One that does not start is named and does not keep the others from it.
        """
        for state in self.profile.serving.states():
            tenant = catalog.tenants.get(state.tenant)
            if (state.status == "stopped" or state.faulty) and tenant and state.model in tenant.models:
                say(f"Starting {state.tenant}/{state.model} again …")
                try:
                    self._revive(catalog, state.tenant, state.model, say)
                except FAULTS as fault:
                    say(str(fault))

    def _revive(self, catalog: Catalog, tenant: str, model: str, say: Callable[[str], None]) -> None:
        """Raises:
        ServingError: What was live does not start, or nobody can read what was.
        """
        serving, gateway = self.profile.serving, self.profile.gateway
        doing = f"starting {tenant}/{model} again"
        with self.profile.state.turn(tenant, model, "deploy", doing=doing, say=say):
            before = serving.state(tenant, model)
            if not before.backends:
                raise ServingError(before.why or f"{tenant}/{model} is {before.status}.")
            servings = tuple(self._as_before(catalog, tenant, model, each) for each in before.backends)
            serving.deploy(servings, publish=partial(publish, gateway, log=say), log=say)

    def _as_before(self, catalog: Catalog, tenant: str, model: str, backend: Backend) -> Serving:
        version = VersionShare(
            tenant=tenant,
            model=model,
            label=backend.version,
            digest=backend.digest,
            weight=backend.weight,
            aliases=backend.aliases,
        )
        profile, entry = self.profile, catalog.models[model]
        return serving_of(catalog, entry, profile.store, self.settings, profile.serving.device, version)

    def _stop_deployment(self, tenant: str, model: str) -> None:
        stop = partial(self.profile.serving.stop, tenant, model)
        with self._turn_to_stop(tenant, model, stop):
            self.profile.gateway.withdraw(tenant, model)
            stop()

    @contextmanager
    def _turn_to_stop(self, tenant: str, model: str, end_servers: Callable[[], None]) -> Iterator[None]:
        """A deploy under way is not waited for: its new server is ended, upon which it gives up."""
        deadline = time.monotonic() + STOP_TURN_S
        with ExitStack() as held:
            while True:
                turn = self.profile.state.turn(
                    tenant, model, "deploy", doing="stopping", say=_quiet, timeout_s=1
                )
                try:
                    held.enter_context(turn)
                    break
                except TurnTakenError:
                    if time.monotonic() > deadline:
                        raise
                    end_servers()
            yield

    def stop(self) -> None:
        """Ends everything, live servers included. What is not running is fine."""
        self.processes.stop(UI, timeout_s=STOP_S)
        self.gateway.stop()
        for route in self.profile.serving.routes():
            self._stop_deployment(route.tenant, route.model)
        self.profile.mlflow.stop()


def _quiet(_text: str) -> None:
    """For turns that are not waited for."""
