"""From what is live to what is wanted, without a moment in which the model has no server.

Production comes first: while its new server starts, everything old goes on as it was. Once it is
proven, production has all requests but those of the versions that are up already, what is not
wanted any more is ended, and then the other versions start one after another, each getting its weight when
it is proven. So at most one server more runs than versions are live, before or after.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from resources.gateway.publishing import Live, Publication
from resources.processes.local_processes import ProcessRecord
from resources.serving.deployment_state import Deployment, DeploymentFolder, LiveServer, Wanted
from resources.serving.routes import WHOLE
from resources.serving.servers import Log, VllmServers
from resources.vllm.program import Serving, VllmError, settings_fingerprint
from resources.waiting import WaitTimeout, wait_until

DRAIN_S = 300  # a long answer that is being given when another version takes over


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One deploy of a tenant's model. `wanted` has production first; `gateway` is told where it is to be."""

    servers: VllmServers
    wanted: tuple[Wanted, ...]
    log: Log
    gateway: Publication | None = None

    @property
    def folder(self) -> DeploymentFolder:
        production = self.wanted[0].serving
        return self.servers.folder(production.tenant, production.model)

    def carry_out(self) -> Deployment:
        """Raises:
        VllmError: A new server did not start or answers differently than the merged model did; it is
            ended, and the text says what goes on serving.
        """
        up = self._up_already()
        for live in up.values():
            self.log(f"{live.serving.name} version {live.serving.version} is live already.")
        if 0 in up:
            self._switch(up)
        for at, each in enumerate(self.wanted):
            if at not in up:
                with self._saying_what_goes_on():
                    server = self._successor(each.serving)
                live = _live(each.serving, server)
                with self._ended_on_failure(server):
                    self._write({**up, at: live})
                up[at] = live
                self._announce(up)
                self._go_over(up)
        return self._deployment(up)

    def _up_already(self) -> dict[int, LiveServer]:
        """Of the wanted versions, by their place, those whose server is live and does as it should."""
        deployment = self.folder.read()
        known = () if deployment is None or deployment.stopped else deployment.servers
        return {
            at: live
            for at, each in enumerate(self.wanted)
            for live in known
            if live.fingerprint == settings_fingerprint(each.serving) and self._does(live, each.serving)
        }

    def _does(self, live: LiveServer, serving: Serving) -> bool:
        server = self.servers.processes.find(live.server)
        if not (server and self._leaves_room(server, serving) and self.servers.ready(server)):
            return False
        return self.servers.fault(server, serving, serving.served_names[0], serving.known_answers[0]) is None

    def _leaves_room(self, server: ProcessRecord, serving: Serving) -> bool:
        """Whether it was started with as many live versions beside it in mind as there are to be now."""
        return serving.device == "cpu" or server.attributes.get("live_versions", 1) >= len(self.wanted)

    def _switch(self, up: Mapping[int, LiveServer]) -> None:
        if self.folder.read() != self._deployment(up):
            self._write(up)
            self._announce(up)
        self._go_over(up)

    def _go_over(self, up: Mapping[int, LiveServer]) -> None:
        """The gateway's requests go to what is up; then what is not wanted any more answers its last ones."""
        if self.gateway is not None:
            deployment = self._deployment(up)
            self.gateway.publish(Live(deployment=deployment, api_key=self.folder.api_key()))
            live = {each.server for each in deployment.servers}
            self.gateway.retire(deployment.route.tenant, deployment.route.model, kept=live)
        self._end_others(self._kept(up))

    def _deployment(self, up: Mapping[int, LiveServer]) -> Deployment:
        """Of what is up: production has whatever weight the others do not have yet."""
        weights = {at: self.wanted[at].weight for at in up if at}
        weights[0] = WHOLE - sum(weights.values())
        servers = (replace(up[at], weight=weights[at], aliases=self.wanted[at].aliases) for at in sorted(up))
        return Deployment(servers=tuple(servers))

    def _write(self, up: Mapping[int, LiveServer]) -> None:
        self.folder.write(self._deployment(up))

    def _announce(self, up: Mapping[int, LiveServer]) -> None:
        for live in self._deployment(up).servers:
            self.log(_announcement(live))

    def _kept(self, up: Mapping[int, LiveServer]) -> set[str]:
        """What is live, and what a killed deploy was starting of the versions that are still to come."""
        coming = (self._leftover(each.serving) for at, each in enumerate(self.wanted) if at not in up)
        return {live.server for live in up.values()} | {server.name for server in coming if server}

    def _successor(self, serving: Serving) -> ProcessRecord:
        """A proven server of the serving. One that an earlier, killed deploy was starting is taken over."""
        old = self._recorded()
        leftover = self._leftover(serving)
        self._end_others({server.name for server in (*old, leftover) if server})
        if leftover:
            self.log(f"Taking over vLLM of {serving.name} (pid {leftover.pid}), which was being started.")
            return self._proven(leftover, serving)
        self.log(f"Starting vLLM of {serving.name} version {serving.version}.")
        return self._proven(self.servers.start(serving, live_versions=len(self.wanted)), serving)

    def _recorded(self) -> tuple[ProcessRecord, ...]:
        """The servers that are the live ones now, dead ones included."""
        deployment = self.folder.read()
        known = deployment.servers if deployment else ()
        return tuple(server for live in known if (server := self.servers.processes.find(live.server)))

    def _leftover(self, serving: Serving) -> ProcessRecord | None:
        fingerprint, old = settings_fingerprint(serving), self._recorded()
        for server in self.servers.of(serving.tenant, serving.model):
            fits = server.attributes["fingerprint"] == fingerprint and server not in old
            if fits and self._leaves_room(server, serving) and self.servers.processes.alive(server):
                return server
        return None

    def _proven(self, server: ProcessRecord, serving: Serving) -> ProcessRecord:
        with self._ended_on_failure(server):
            self.servers.prove(server, serving, self.log)
        return server

    @contextmanager
    def _ended_on_failure(self, server: ProcessRecord) -> Iterator[None]:
        try:
            yield
        except BaseException:  # a cancelled run too
            self.servers.end(server)
            raise

    @contextmanager
    def _saying_what_goes_on(self) -> Iterator[None]:
        try:
            yield
        except VllmError as fault:
            deployment = self.folder.read()
            on = (
                [live.serving.version for live in deployment.servers if self._ready(live)]
                if deployment
                else []
            )
            went_on = f"Version {' and '.join(on)} {'goes' if len(on) == 1 else 'go'} on serving."
            raise VllmError(f"{fault}\n{went_on if on else 'Nothing is live.'}") from fault

    def _ready(self, live: LiveServer) -> bool:
        server = self.servers.processes.find(live.server)
        return server is not None and self.servers.ready(server)

    def _end_others(self, kept: set[str]) -> None:
        production = self.wanted[0].serving
        for server in self.servers.of(production.tenant, production.model):
            if server.name not in kept:
                answers = self.servers.ready(server)
                if answers:
                    self._let_finish(server)
                self.servers.end(server, answers=answers)

    def _let_finish(self, server: ProcessRecord) -> None:
        """Waits until nobody asks it anything, at most `DRAIN_S`; vLLM itself lets its last answers end.

        What it says of itself lags behind what has reached it, so the connections to it decide.
        """
        with suppress(WaitTimeout):
            wait_until(
                lambda: not self.servers.asked(server), what=server.name, timeout_s=DRAIN_S, every_s=0.1
            )


def _live(serving: Serving, server: ProcessRecord) -> LiveServer:
    return LiveServer(
        serving=serving,
        fingerprint=settings_fingerprint(serving),
        server=server.name,
        weight=WHOLE,
        since=time.time(),
    )


def _announcement(live: LiveServer) -> str:
    share = "" if live.weight == WHOLE else f" and gets {live.weight} % of the requests"
    return f"{live.serving.name} version {live.serving.version} is live{share}."
