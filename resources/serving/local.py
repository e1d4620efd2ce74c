"""Live vLLM servers on this machine: of each tenant and model one, or several versions side by side.

A deploy starts each new server beside what is live, asks it the known questions, switches
`deployment.json` over in one rename and then ends what is not wanted any more. Killed at any moment it
leaves the old set of servers live or the new one, and nothing unrecorded: the next deploy takes over
the server that was being started, or ends it.

Only this user can reach the servers, by their sockets; everybody else asks the gateway.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg

from resources.engines.installation import wait_for_installation
from resources.gateway.publishing import Live, Publication
from resources.local.state import LocalState
from resources.processes.local_processes import ProcessRecord
from resources.seams.state import TurnTakenError
from resources.serving.deployment_state import Deployment, LiveServer, Wanted, check_wanted
from resources.serving.observed_state import death_of, state_of
from resources.serving.rollout import Rollout
from resources.serving.routes import Backend, DeploymentState, Route, choose
from resources.serving.servers import Log, VllmServers
from resources.vllm.client import Message, VllmClient, VllmUnreachable
from resources.vllm.program import Serving, VllmError

__all__ = ["DeploymentState", "LocalServing", "Route", "Serving", "VllmError", "Wanted"]


DEPLOY_TURN_S = 1800
STOP_TURN_S = 60


def _quiet(_text: str) -> None:
    """For turns that are not waited for."""


class LocalServing(dg.ConfigurableResource[Any]):
    """Serves models with the `vllm` of `<engines>/serve`; what it knows lies in `<home>/serving`.

    `gateway`: whether the gateway of `home` is told what is live, before what was live ends.
    """

    home: str
    engines: str
    gateway: bool = False

    @property
    def servers(self) -> VllmServers:
        # The environment's own folder, not the link to it: an upgrade must not mix two under one server.
        environment = (Path(self.engines) / "serve").resolve()
        return VllmServers(home=Path(self.home), executable=environment / "bin" / "vllm")

    def deploy(self, wanted: Serving | tuple[Wanted, ...], log: Log) -> Route:
        """Makes a version live, or several with their weights, or finds that they are.

        Two deploys of one tenant and model take turns.

        Args:
            wanted: Production first. The weights add up to 100; a `Serving` alone has them all.

        Raises:
            VllmError: A new server did not start or answers differently than the merged model did;
                it is ended. What was live before goes on; production does not wait for another version.
        """
        every = (Wanted(serving=wanted),) if isinstance(wanted, Serving) else wanted
        check_wanted(every)
        wait_for_installation(Path(self.engines), "serve", log)
        for each in every:
            _require_files(each.serving)
        production = every[0].serving
        with self._turn(production.tenant, production.model, "deploying", log, DEPLOY_TURN_S):
            self._leave_out_the_dead(production.tenant, production.model)
            rollout = Rollout(servers=self.servers, wanted=every, log=log, gateway=self._publication)
            return rollout.carry_out().route

    def route(self, tenant: str, model: str) -> Route | None:
        """What should be live, with which weights; None where nothing is, or it was stopped."""
        deployment = self.servers.folder(tenant, model).read()
        return deployment.route if deployment and not deployment.stopped else None

    def state(self, tenant: str, model: str) -> DeploymentState:
        """How a deployment is right now; its servers are asked."""
        return state_of(self.servers, tenant, model)

    def states(self) -> tuple[DeploymentState, ...]:
        """Every deployment that this installation ever had."""
        return tuple(self.state(folder.parent.name, folder.name) for folder in self._folders())

    def deaths(self) -> Iterator[tuple[str, str, str]]:
        """Tenant, model and a sentence, for each deployment of which a server's process is gone."""
        for folder in self._folders():
            tenant, model = folder.parent.name, folder.name
            if why := death_of(self.servers, tenant, model):
                yield tenant, model, why

    def running(self) -> Iterator[tuple[LiveServer, ProcessRecord]]:
        """Every server that should be live and whose process runs, whether it answers or not."""
        for folder in self._folders():
            with suppress(VllmError):  # nobody can read what should be live; `state` says so
                for live in self._running_servers(folder.parent.name, folder.name):
                    if server := self.servers.processes.find(live.server):
                        yield live, server

    def give_up(self, live: LiveServer, server: ProcessRecord, why: str) -> None:
        """Kills a live server that does not answer, and has the gateway send it no request any more.

        Raises:
            VllmError: It cannot be killed.
            GatewayError: The gateway does not take that.
        """
        self.servers.give_up(server, why)
        self.leave_out_the_dead(live.serving.tenant, live.serving.model)

    def leave_out_the_dead(self, tenant: str, model: str) -> None:
        """Tells the gateway which servers of a deployment run, so that requests go to those alone.

        A deploy or stop that is under way does that by itself.
        """
        with suppress(TurnTakenError), self._turn(tenant, model, "leaving out the dead", timeout_s=0):
            self._leave_out_the_dead(tenant, model)

    def _leave_out_the_dead(self, tenant: str, model: str) -> None:
        folder = self.servers.folder(tenant, model)
        deployment = folder.read()
        if self._publication is None or deployment is None or deployment.stopped:
            return
        dead = {live.server for live in deployment.servers if not self._runs(live)}
        if len(dead) == len(deployment.servers):
            self._publication.withdraw(tenant, model)
        elif dead:
            told = Live(deployment=deployment, api_key=folder.api_key(), dead=frozenset(dead))
            self._publication.publish(told)

    def _folders(self) -> list[Path]:
        return sorted((Path(self.home) / "serving").glob("*/*/"))

    def stop(self, tenant: str, model: str) -> None:
        """Ends a deployment's servers, one that is being started too. `revive` or `deploy` start it again.

        Of one that is unreadable nothing is written down; its state goes on saying so.
        """

        def end_servers() -> None:
            for server in self.servers.of(tenant, model):
                self.servers.end(server)

        with self._turn_to_stop(tenant, model, end_servers):
            if self._publication:
                self._publication.withdraw(tenant, model)
            end_servers()
            folder = self.servers.folder(tenant, model)
            with suppress(VllmError):
                if deployment := folder.read():
                    folder.write(replace(deployment, stopped=True))

    def stop_all(self) -> None:
        for folder in self._folders():
            self.stop(folder.parent.name, folder.name)

    def revive(self, tenant: str, model: str, log: Log, *, verified: Callable[[Serving], Serving]) -> Route:
        """Makes live again what was live when it died or was stopped.

        Args:
            verified: Gives the same version again, its files verified; raises if they are not right.

        Raises:
            VllmError: Nothing ever was, or it does not start.
        """
        deployment = self.servers.folder(tenant, model).read()
        if deployment is None:
            raise VllmError(
                f"{tenant}/{model} was never live, so there is nothing to revive. Deploy it first."
            )
        wanted = tuple(replace(live.wanted, serving=verified(live.serving)) for live in deployment.servers)
        return self.deploy(wanted, log)

    def publish_all(self) -> None:
        """Tells the gateway everything anew: of each deployment the servers that run.

        One that is unreadable gets no requests, and keeps none from the others.
        """
        if self._publication is None:
            return
        lives, stopped = [], []
        for folder in self._folders():
            tenant, model = folder.parent.name, folder.name
            alive: tuple[LiveServer, ...] = ()
            with suppress(VllmError):
                alive = self._running_servers(tenant, model)
            deployment = self.servers.folder(tenant, model).read() if alive else None
            if deployment:
                key = self.servers.folder(tenant, model).api_key()
                dead = frozenset(live.server for live in deployment.servers if live not in alive)
                lives.append(Live(deployment=deployment, api_key=key, dead=dead))
            else:
                stopped.append((tenant, model))
        self._publication.publish_all(lives, stopped)

    def ask(self, tenant: str, model: str, messages: list[Message], **options: Any) -> str:
        """The live model's answer. Options as for `stream`.

        Raises:
            VllmError: Nothing is live, or it failed.
        """
        return "".join(self.stream(tenant, model, messages, **options))

    def stream(
        self,
        tenant: str,
        model: str,
        messages: list[Message],
        *,
        version: str | None = None,
        key: str | None = None,
        **options: Any,
    ) -> Iterator[str]:
        """As `ask`, piece by piece. A switch to a new server between looking and asking is bridged.

        Args:
            version: The label of the live version that is to answer; by weight if left out.
            key: Requests of equal key go to the same version (see `routes.choose`).
            options: Those of an OpenAI chat completion (`max_tokens`, …).
        """
        chosen = self._choose(tenant, model, version, key)
        begun = False
        try:
            for piece in self._stream_from(chosen, messages, options):
                begun = True
                yield piece
        except VllmUnreachable:
            again = self._choose(tenant, model, version, key)
            if begun or again.server == chosen.server:
                raise
            yield from self._stream_from(again, messages, options)

    def choose(
        self, tenant: str, model: str, *, version: str | None = None, key: str | None = None
    ) -> Backend:
        """The live version that would answer; ask it by its `version`.

        Raises:
            VllmError: Nothing is live, or not that version.
        """
        return self._choose(tenant, model, version, key).backend

    def served_digest(self, tenant: str, model: str, version: str | None = None) -> str:
        """The digest on a response of a live version's server (of production's), asked just now."""
        route = self.route(tenant, model)
        wanted = version or (route.production.version if route else None)
        with self._client(self._choose(tenant, model, wanted, None)) as client:
            return client.digest(model)

    def _choose(self, tenant: str, model: str, version: str | None, key: str | None) -> LiveServer:
        alive = self._alive(tenant, model)
        known = {live.backend: live for live in alive.servers if version in (None, live.serving.version)}
        if not known:
            versions = " and ".join(live.serving.version for live in alive.servers)
            raise VllmError(f"{tenant}/{model} has no live version {version}; live is {versions}.")
        return known[choose(tuple(known), key)]

    def _alive(self, tenant: str, model: str) -> Deployment:
        """What is live, of it the servers that run: a dead one's requests go to the others."""
        if alive := self._running_servers(tenant, model):
            return Deployment(servers=alive)
        state = self.state(tenant, model)
        raise VllmError(f"{tenant}/{model} is {state.status}, not live. {state.why or ''}".strip())

    def _running_servers(self, tenant: str, model: str) -> tuple[LiveServer, ...]:
        deployment = self.servers.folder(tenant, model).read()
        servers = deployment.servers if deployment and not deployment.stopped else ()
        return tuple(live for live in servers if self._runs(live))

    def _runs(self, live: LiveServer) -> bool:
        server = self.servers.processes.find(live.server)
        return server is not None and self.servers.processes.alive(server)

    def _stream_from(
        self, live: LiveServer, messages: list[Message], options: dict[str, Any]
    ) -> Iterator[str]:
        with self._client(live) as client:
            yield from client.stream(live.serving.model, messages, **options)

    def _client(self, live: LiveServer) -> VllmClient:
        key = self.servers.folder(live.serving.tenant, live.serving.model).api_key()
        return VllmClient(self.servers.socket(live.server), key)

    @property
    def _publication(self) -> Publication | None:
        return Publication(home=Path(self.home)) if self.gateway else None

    def _turn(
        self, tenant: str, model: str, doing: str, say: Log = _quiet, timeout_s: float = 0
    ) -> AbstractContextManager[None]:
        """That of this machine's servers, which no other machine changes."""
        servers = LocalState(folder=Path(self.home) / "locks" / "servers")
        return servers.turn(tenant, model, "deploy", doing=doing, say=say, timeout_s=timeout_s)

    @contextmanager
    def _turn_to_stop(self, tenant: str, model: str, end_servers: Callable[[], None]) -> Iterator[None]:
        """A running deploy is not waited for: its new server is ended, upon which it gives up."""
        deadline = time.monotonic() + STOP_TURN_S
        with ExitStack() as held:
            while True:
                try:
                    held.enter_context(self._turn(tenant, model, "stopping", timeout_s=1))
                    break
                except TurnTakenError:
                    if time.monotonic() > deadline:
                        raise
                    end_servers()
            yield


def _require_files(serving: Serving) -> None:
    for path in (serving.model_folder, serving.adapter_folder, serving.chat_template):
        if path is not None and not path.exists():
            raise VllmError(
                f"{serving.name} version {serving.version} cannot be served: {path} does not exist."
            )
