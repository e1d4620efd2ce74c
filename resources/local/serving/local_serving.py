"""Live vLLM servers on this machine: of each tenant and model one, or several versions side by side.

A deploy starts each new server beside what is live, asks it the known questions, switches
`deployment.json` over in one rename and then ends what is not wanted any more. Killed at any moment it
leaves the old set of servers live or the new one, and nothing unrecorded: the next deploy takes over
the server that was being started, or ends it.

Only this user can reach the servers, by their sockets; everybody else asks the gateway.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from resources.artifact_store.store import ArtifactStore
from resources.engines.installation import device_here, engine_status, wait_for_installation
from resources.local.serving.observed_state import running, state_of
from resources.local.serving.rollout import Rollout
from resources.local.serving.servers import VllmServers
from resources.local.serving.watching import ServerWatch
from resources.processes.local_processes import ProcessRecord
from resources.seams.serving import Deployment, Device, Log, Route, Serving, ServingError, check_servings


@dataclass(frozen=True, kw_only=True)
class LocalServing:
    """Serves models with the `vllm` of `<engines>/serve`; what it knows lies in `<home>/serving`."""

    home: Path
    engines: Path
    store: ArtifactStore

    @property
    def servers(self) -> VllmServers:
        # The environment's own folder, not the link to it: an upgrade must not mix two under one server.
        environment = (self.engines / "serve").resolve()
        return VllmServers(home=self.home, executable=environment / "bin" / "vllm", store=self.store)

    @property
    def device(self) -> Device:
        """That of the installed engine; where there is none yet, what it will be installed for."""
        return engine_status(self.engines, "serve").device or device_here()

    def deploy(self, servings: tuple[Serving, ...], *, publish: Callable[[Route], object], log: Log) -> Route:
        check_servings(servings)
        wait_for_installation(self.engines, "serve", log)
        production = servings[0]
        now = self.route(production.tenant, production.model)
        if now.dead:
            publish(now)
        wanted = self._by_the_installed_engine(servings, log)
        return Rollout(servers=self.servers, wanted=wanted, publish=publish, log=log).carry_out()

    def _by_the_installed_engine(self, servings: tuple[Serving, ...], log: Log) -> tuple[Serving, ...]:
        """An engine of another lock serves until the new one is installed, and is then replaced."""
        installed = engine_status(self.engines, "serve")
        if installed.lock_digest is None or installed.current:
            return servings
        log(
            f"The serve engine in {installed.folder} is of an earlier lock; `{installed.remedy}` replaces it."
        )
        return tuple(replace(each, engine=installed.lock_digest) for each in servings)

    def stop(self, tenant: str, model: str) -> None:
        """Of one that is unreadable nothing is written down; its state goes on saying so."""
        for server in self.servers.of(tenant, model):
            self.servers.end(server)
        folder = self.servers.folder(tenant, model)
        with suppress(ServingError):
            if backends := folder.read().backends:
                folder.write(backends, stopped=True)

    def route(self, tenant: str, model: str) -> Route:
        folder = self.servers.folder(tenant, model)
        deployment = folder.read()
        if deployment.status != "live":
            return Route(tenant=tenant, model=model)
        backends = running(self.servers, deployment)
        return Route(tenant=tenant, model=model, backends=backends, api_key=folder.api_key())

    def routes(self) -> Iterator[Route]:
        """One that nobody can read has no backend, and keeps none from the others."""
        for tenant, model in self._lines():
            try:
                yield self.route(tenant, model)
            except ServingError:  # its state says so
                yield Route(tenant=tenant, model=model)

    def state(self, tenant: str, model: str) -> Deployment:
        return state_of(self.servers, tenant, model)

    def states(self) -> tuple[Deployment, ...]:
        return tuple(self.state(*line) for line in self._lines())

    @contextmanager
    def watching(self, log: Log) -> Iterator[Callable[[], None]]:
        with closing(ServerWatch(servers=self.servers)) as watch:

            def look() -> None:
                for each in watch.look(self.running()):
                    owner = each.server.attributes
                    log(f"{each.server.name} of {owner['tenant']}/{owner['model']} is killed: {each.why}.")
                    self.servers.give_up(each.server, each.why)

            yield look

    def running(self) -> list[ProcessRecord]:
        """Every server that should be live and whose process runs, whether it answers or not."""
        backends = (each for route in self.routes() for each in route.backends if each.status == "live")
        found = (self.servers.processes.find(each.id) for each in backends)
        return [server for server in found if server]

    def _lines(self) -> Iterator[tuple[str, str]]:
        for folder in sorted((self.home / "serving").glob("*/*/")):
            yield folder.parent.name, folder.name
