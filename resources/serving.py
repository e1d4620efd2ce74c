"""Live vLLM servers on this machine, one per tenant and model.

A deploy starts the new server beside the old one, asks it the known questions, switches
`deployment.json` over in one rename and then ends the old one. Killed at any moment it leaves the
old server live or the new one, and nothing unrecorded: the next deploy takes over the server that
was being started, or ends it.

Addresses change with each deploy unless the model sets a port. Only this machine can reach them.
Not covered: on a fixed port, old and new both answer for the second or two of the switch (a request
that the old one has just taken may fail and has to be sent again), and the new one's proof was given
by a twin of it on another port.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import filelock

from resources.deployment_state import Deployment, DeploymentFolder, DeploymentState, Endpoint
from resources.local_processes import ProcessRecord
from resources.vllm import Serving, VllmError, settings_fingerprint
from resources.vllm_client import Message, VllmClient, VllmUnreachable
from resources.vllm_servers import Log, VllmServers

__all__ = ["DeploymentState", "Endpoint", "LocalServing", "Serving", "VllmError"]

DEPLOY_TURN_S = 1800
STOP_TURN_S = 60


class LocalServing(dg.ConfigurableResource[Any]):
    """Serves models with the `vllm` of `<engines>/serve`; what it knows lies in `<home>/serving`."""

    home: str
    engines: str

    @property
    def servers(self) -> VllmServers:
        # The environment's own folder, not the link to it: an upgrade must not mix two under one server.
        environment = (Path(self.engines) / "serve").resolve()
        return VllmServers(home=Path(self.home), executable=environment / "bin" / "vllm")

    def deploy(self, serving: Serving, log: Log) -> Endpoint:
        """Makes a serving live, or finds that it is. Two deploys of one tenant and model take turns.

        Raises:
            VllmError: The new server did not start or answers differently than the merged model did;
                it is ended, and what was live before goes on.
        """
        _require_files(serving)
        with self._turn(serving.tenant, serving.model, log):
            live = self._folder(serving).read()
            if live and self._serves(live, serving):
                log(f"{serving.name} version {serving.version} is live already at {live.address}.")
                self._end_others(serving, live.server)
                return live.endpoint
            return self._replace(live, serving, log)

    def _serves(self, live: Deployment, serving: Serving) -> bool:
        server = self.servers.processes.find(live.server)
        wanted = not live.stopped and live.fingerprint == settings_fingerprint(serving)
        if not (wanted and server and self.servers.ready(server)):
            return False
        return self.servers.fault(server, serving, serving.served_names[0], serving.known_answers[0]) is None

    def _replace(self, live: Deployment | None, serving: Serving, log: Log) -> Endpoint:
        old = self.servers.processes.find(live.server) if live else None
        try:
            server = self._successor(old, serving, log)
        except VllmError as fault:
            went_on = bool(old and live and self.servers.ready(old))
            rest = (
                f"Version {live.serving.version} goes on serving." if live and went_on else "Nothing is live."
            )
            raise VllmError(f"{fault}\n{rest}") from fault
        with self._ended_on_failure(server):
            deployment = Deployment(
                serving=serving,
                fingerprint=settings_fingerprint(serving),
                server=server.name,
                port=server.attributes["port"],
                since=time.time(),
            )
            self._folder(serving).write(deployment)
        log(f"{serving.name} version {serving.version} is live at {deployment.address}.")
        self._end_others(serving, server.name)
        return deployment.endpoint

    def _successor(self, old: ProcessRecord | None, serving: Serving, log: Log) -> ProcessRecord:
        """A proven server of the serving. One that an earlier, killed deploy was starting is taken over."""
        shares_port = bool(
            old and serving.port == old.attributes["port"] and self.servers.processes.alive(old)
        )
        leftover = None if shares_port else self._leftover(old, serving)
        self._end_others(serving, *(server.name for server in (old, leftover) if server))
        if leftover:
            log(f"Taking over vLLM of {serving.name} (pid {leftover.pid}), which was being started.")
            return self._proven(leftover, serving, log)
        log(f"Starting vLLM of {serving.name} version {serving.version}.")
        if not shares_port:
            return self._proven(self.servers.start(serving, port=serving.port), serving, log)
        self.servers.end(self._proven(self.servers.start(serving, port=None), serving, log))
        server = self.servers.start(serving, beside=old, port=serving.port)
        with self._ended_on_failure(server):
            self.servers.wait_ready(server, serving)
        return server

    def _leftover(self, old: ProcessRecord | None, serving: Serving) -> ProcessRecord | None:
        fingerprint = settings_fingerprint(serving)
        for server in self.servers.of(serving.tenant, serving.model):
            fits = server.attributes["fingerprint"] == fingerprint and server != old
            port_fits = serving.port in (None, server.attributes["port"])
            if fits and port_fits and self.servers.processes.alive(server):
                return server
        return None

    def _proven(self, server: ProcessRecord, serving: Serving, log: Log) -> ProcessRecord:
        with self._ended_on_failure(server):
            self.servers.prove(server, serving, log)
        return server

    @contextmanager
    def _ended_on_failure(self, server: ProcessRecord) -> Iterator[None]:
        try:
            yield
        except BaseException:  # a cancelled run too
            self.servers.end(server)
            raise

    def _end_others(self, serving: Serving, *kept: str) -> None:
        for server in self.servers.of(serving.tenant, serving.model):
            if server.name not in kept:
                self.servers.end(server, drain=True)

    def state(self, tenant: str, model: str) -> DeploymentState:
        """How a deployment is right now; the server is asked."""
        live = self.servers.folder(tenant, model).read()
        server = self.servers.processes.find(live.server) if live else None
        if live and server and not live.stopped and self.servers.ready(server):
            return DeploymentState(status="live", **vars(live.endpoint))
        coming = (
            s for s in self.servers.of(tenant, model) if s != server and self.servers.processes.alive(s)
        )
        if starting := next(coming, None):
            version = starting.attributes["version"]
            return DeploymentState(tenant=tenant, model=model, status="starting", version=version)
        if live is None:
            return DeploymentState(tenant=tenant, model=model, status="absent")
        known = {**vars(live.endpoint), "address": None}
        if live.stopped:
            return DeploymentState(status="stopped", **known)
        return DeploymentState(status="dead", **known, why=self._why_dead(live, server))

    def _why_dead(self, live: Deployment, server: ProcessRecord | None) -> str:
        if server is None:
            return f"vLLM of {live.serving.name} is not running and its process record {live.server} is gone."
        who = f"vLLM of {live.serving.name} (pid {server.pid})"
        if self.servers.processes.alive(server):
            return f"{who} runs but does not answer at {live.address}; its log is {server.log}."
        return f"{who} died: {self.servers.cause(server)}; its log is {server.log}."

    def states(self) -> tuple[DeploymentState, ...]:
        """Every deployment that this installation ever had."""
        folders = sorted((Path(self.home) / "serving").glob("*/*/"))
        return tuple(self.state(folder.parent.name, folder.name) for folder in folders)

    def stop(self, tenant: str, model: str) -> None:
        """Ends a deployment's servers, one that is being started too. `revive` or `deploy` start it again."""
        with self._turn_to_stop(tenant, model):
            for server in self.servers.of(tenant, model):
                self.servers.end(server)
            folder = self.servers.folder(tenant, model)
            if live := folder.read():
                folder.write(Deployment(**{**vars(live), "stopped": True}))

    def stop_all(self) -> None:
        for state in self.states():
            self.stop(state.tenant, state.model)

    def revive(self, tenant: str, model: str, log: Log) -> Endpoint:
        """Makes live again what was live when it died or was stopped.

        Raises:
            VllmError: Nothing ever was, or it does not start.
        """
        live = self.servers.folder(tenant, model).read()
        if live is None:
            raise VllmError(
                f"{tenant}/{model} was never live, so there is nothing to revive. Deploy it first."
            )
        return self.deploy(live.serving, log)

    def ask(self, tenant: str, model: str, messages: list[Message], **options: Any) -> str:
        """The live model's answer. Options are those of an OpenAI chat completion (`max_tokens`, …).

        Raises:
            VllmError: Nothing is live, or it failed.
        """
        return "".join(self.stream(tenant, model, messages, **options))

    def stream(self, tenant: str, model: str, messages: list[Message], **options: Any) -> Iterator[str]:
        """As `ask`, piece by piece. A switch to a new server between looking and asking is bridged."""
        before = self._live(tenant, model)
        begun = False
        try:
            for piece in self._stream_from(before, messages, options):
                begun = True
                yield piece
        except VllmUnreachable:
            if begun or self._live(tenant, model).server == before.server:
                raise
            yield from self._stream_from(self._live(tenant, model), messages, options)

    def _stream_from(
        self, live: Deployment, messages: list[Message], options: dict[str, Any]
    ) -> Iterator[str]:
        with self._client(live) as client:
            yield from client.stream(live.serving.model, messages, **options)

    def served_digest(self, tenant: str, model: str) -> str:
        """The digest on a response of the live server, asked just now."""
        live = self._live(tenant, model)
        with self._client(live) as client:
            return client.digest(model)

    def _live(self, tenant: str, model: str) -> Deployment:
        live = self.servers.folder(tenant, model).read()
        server = self.servers.processes.find(live.server) if live else None
        if live and server and self.servers.processes.alive(server) and not live.stopped:
            return live
        state = self.state(tenant, model)
        raise VllmError(f"{tenant}/{model} is {state.status}, not live. {state.why or ''}".strip())

    def _client(self, live: Deployment) -> VllmClient:
        return VllmClient(live.address, self._folder(live.serving).api_key())

    def _folder(self, serving: Serving) -> DeploymentFolder:
        return self.servers.folder(serving.tenant, serving.model)

    def _lock(self, tenant: str, model: str) -> filelock.BaseFileLock:
        locks = Path(self.home) / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(locks / f"serving--{tenant}--{model}.lock")

    @contextmanager
    def _turn(self, tenant: str, model: str, log: Log) -> Iterator[None]:
        lock = self._lock(tenant, model)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            log(f"Another deploy of {tenant}/{model} is running; waiting for it.")
            self._wait_for_turn(lock, tenant, model)
        try:
            yield
        finally:
            lock.release()

    def _wait_for_turn(self, lock: filelock.BaseFileLock, tenant: str, model: str) -> None:
        try:
            lock.acquire(timeout=DEPLOY_TURN_S)
        except filelock.Timeout as fault:
            raise VllmError(
                f"Another deploy of {tenant}/{model} has been running for over {DEPLOY_TURN_S // 60} "
                "minutes. Find its run in the Dagster UI under Runs and end it, then try again."
            ) from fault

    @contextmanager
    def _turn_to_stop(self, tenant: str, model: str) -> Iterator[None]:
        """A running deploy is not waited for: its new server is ended, upon which it gives up."""
        lock = self._lock(tenant, model)
        deadline = time.monotonic() + STOP_TURN_S
        while not lock.is_locked:
            try:
                lock.acquire(timeout=1)
            except filelock.Timeout:
                if time.monotonic() > deadline:
                    raise VllmError(
                        f"A deploy of {tenant}/{model} does not end; stop its run first."
                    ) from None
                for server in self.servers.of(tenant, model):
                    self.servers.end(server)
        try:
            yield
        finally:
            lock.release()


def _require_files(serving: Serving) -> None:
    for path in (serving.model_folder, serving.adapter_folder, serving.chat_template):
        if path is not None and not path.exists():
            raise VllmError(
                f"{serving.name} version {serving.version} cannot be served: {path} does not exist."
            )
