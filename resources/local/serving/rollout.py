"""From what is live to what is wanted, without a moment in which the model has no server.

Production comes first: while its new server starts, everything old goes on as it was. Once it is
proven, production has all requests but those of the versions that are up already, what is not
wanted any more is ended, and then the other versions start one after another, each getting its weight when
it is proven. So at most one server more runs than versions are live, before or after.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from resources.local.serving.deployment_folder import DeploymentFolder
from resources.local.serving.observed_state import running
from resources.local.serving.servers import SOCKETS, VllmServers, socket_of
from resources.processes.local_processes import ProcessRecord
from resources.seams.serving import WHOLE, Backend, Log, Route, Serving, ServingError
from resources.waiting import WaitTimeout, wait_until

DRAIN_S = 300  # a long answer that is being given when another version takes over


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One deploy of a tenant's model. `wanted` has production first."""

    servers: VllmServers
    wanted: tuple[Serving, ...]
    publish: Callable[[Route], object]
    log: Log

    @property
    def folder(self) -> DeploymentFolder:
        return self.servers.folder(self.wanted[0].tenant, self.wanted[0].model)

    def carry_out(self) -> Route:
        """Raises:
        ServingError: A new server did not start or answers differently than the merged model did; it is
            ended, and the text says what goes on serving.
        """
        up = self._up_already()
        for at in up:
            self.log(f"{self.wanted[at].name} version {self.wanted[at].version} is live already.")
        if 0 in up:
            self._switch(up)
        faults = []
        for at, each in enumerate(self.wanted):
            if at in up:
                continue
            try:
                self._bring_up(at, each, up)
            except ServingError as fault:
                faults.append(str(fault))
                if at == 0:
                    break
        if faults:
            raise ServingError("\n".join([*faults, self._what_goes_on()]))
        return self._route(up)

    def _bring_up(self, at: int, serving: Serving, up: dict[int, Backend]) -> None:
        server = self._successor(serving)
        backend = _backend(serving, server)
        with self._ended_on_failure(server):
            self._write({**up, at: backend})
        up[at] = backend
        self._announce(up)
        self._go_over(up)

    def _up_already(self) -> dict[int, Backend]:
        """Of the wanted versions, by their place, those whose server is live and does as it should."""
        deployment = self.folder.read()
        known = deployment.backends if deployment.status == "live" else ()
        return {
            at: backend
            for at, each in enumerate(self.wanted)
            for backend in known
            if backend.fingerprint == each.fingerprint and self._does(backend, each)
        }

    def _does(self, backend: Backend, serving: Serving) -> bool:
        server = self.servers.processes.find(backend.id)
        if not (server and self._leaves_room(server, serving) and self.servers.ready(server)):
            return False
        return self.servers.fault(server, serving, serving.served_names[0], serving.known_answers[0]) is None

    def _leaves_room(self, server: ProcessRecord, serving: Serving) -> bool:
        """Whether it was started with as many live versions beside it in mind as there are to be now."""
        return serving.device == "cpu" or server.attributes.get("live_versions", 1) >= len(self.wanted)

    def _switch(self, up: Mapping[int, Backend]) -> None:
        if self.folder.read().backends != self._backends(up):
            self._write(up)
            self._announce(up)
        self._go_over(up)

    def _go_over(self, up: Mapping[int, Backend]) -> None:
        """Requests go to what is up; then what is not wanted any more answers its last ones."""
        self.publish(self._route(up))
        self._end_others(self._kept(up))

    def _route(self, up: Mapping[int, Backend]) -> Route:
        production, api_key = self.wanted[0], self.folder.api_key()
        return Route(
            tenant=production.tenant, model=production.model, backends=self._backends(up), api_key=api_key
        )

    def _backends(self, up: Mapping[int, Backend]) -> tuple[Backend, ...]:
        """Of what is up: production has whatever weight the others do not have yet."""
        weights = {at: self.wanted[at].weight for at in up if at}
        weights[0] = WHOLE - sum(weights.values())
        return tuple(
            replace(up[at], weight=weights[at], aliases=self.wanted[at].aliases) for at in sorted(up)
        )

    def _write(self, up: Mapping[int, Backend]) -> None:
        self.folder.write(self._backends(up))

    def _announce(self, up: Mapping[int, Backend]) -> None:
        for backend in self._backends(up):
            share = "" if backend.weight == WHOLE else f" and gets {backend.weight} % of the requests"
            self.log(f"{self.wanted[0].name} version {backend.version} is live{share}.")

    def _kept(self, up: Mapping[int, Backend]) -> set[str]:
        """What is live, and what a killed deploy was starting of the versions that are still to come."""
        coming = (self._leftover(each) for at, each in enumerate(self.wanted) if at not in up)
        return {backend.id for backend in up.values()} | {server.name for server in coming if server}

    def _successor(self, serving: Serving) -> ProcessRecord:
        """A proven server of the serving. One that an earlier, killed deploy was starting is taken over."""
        old = self._recorded()
        leftover = self._leftover(serving)
        self._end_others({server.name for server in (*old, leftover) if server})
        if leftover:
            self.log(f"Taking over vLLM of {serving.name} (pid {leftover.pid}), which was being started.")
            return self._proven(leftover, serving)
        self.log(f"Starting vLLM of {serving.name} version {serving.version}.")
        return self._proven(
            self.servers.start(serving, live_versions=len(self.wanted), log=self.log), serving
        )

    def _recorded(self) -> tuple[ProcessRecord, ...]:
        """The servers that are the live ones now, dead ones included."""
        known = self.folder.read().backends
        return tuple(server for each in known if (server := self.servers.processes.find(each.id)))

    def _leftover(self, serving: Serving) -> ProcessRecord | None:
        fingerprint, old = serving.fingerprint, self._recorded()
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

    def _what_goes_on(self) -> str:
        known = running(self.servers, self.folder.read())
        on = [each.version for each in known if each.status == "live"]
        if not on:
            return "Nothing is live."
        return f"Version {' and '.join(on)} {'goes' if len(on) == 1 else 'go'} on serving."

    def _end_others(self, kept: set[str]) -> None:
        for server in self.servers.of(self.wanted[0].tenant, self.wanted[0].model):
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


def _backend(serving: Serving, server: ProcessRecord) -> Backend:
    return Backend(
        id=server.name,
        version=serving.version,
        digest=serving.digest,
        fingerprint=serving.fingerprint,
        address=f"unix:{SOCKETS}/{socket_of(server.name)}",
        weight=WHOLE,
        since=time.time(),
    )
