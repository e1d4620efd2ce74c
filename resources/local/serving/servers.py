"""vLLM servers as processes of this machine: started, proven, ended.

Each listens on a unix socket in a folder that is its owner's alone, and where the system lets it, it is cut
off from the network: PyTorch listens on ports that know no key, and whoever connects often enough ends it.
Not covered: a server that streams its weights needs the network, and those ports are then open to every user
of this machine. Which of the servers is the live one is none of this module's business: see `rollout`.
"""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resources.artifact_store.store import ArtifactStore
from resources.local.serving.deployment_folder import DeploymentFolder
from resources.local.serving.weights import staged, streamed_model
from resources.names import MODEL, TENANT
from resources.processes.local_processes import LocalProcesses, ProcessError, ProcessRecord
from resources.processes.unix_sockets import connections_to
from resources.seams.serving import Log, Serving, ServingError
from resources.vllm.answers import difference
from resources.vllm.client import VllmClient, VllmUnreachable
from resources.vllm.program import SHUTDOWN_S, final_error, last_error, serve_command, serve_environment
from resources.vllm.streamed_weights import StreamedModel
from resources.waiting import WaitError, WaitTimeout, wait_until

KIND = "vllm"
START_TIMEOUT_S = 900
STOP_S = SHUTDOWN_S + 10
UNWELL_STOP_S = 2
LOG_TAIL_LINES = 12
GIVEN_UP = "llm-assets gave this server up: "
SOCKETS = "sockets"
"""The folder in the state folder where servers listen, which is its owner's alone."""


@dataclass(frozen=True, kw_only=True)
class VllmServers:
    """The servers of one installation. `home` is its state folder, `executable` the `vllm` program."""

    home: Path
    executable: Path
    store: ArtifactStore

    @property
    def processes(self) -> LocalProcesses:
        return LocalProcesses(self.home / "processes")

    def folder(self, tenant: str, model: str) -> DeploymentFolder:
        if not (TENANT.fullmatch(tenant) and MODEL.fullmatch(model)):
            raise ServingError(f"{tenant!r}/{model!r} is not the name of a tenant and a model.")
        return DeploymentFolder(path=self.home / "serving" / tenant / model)

    def of(self, tenant: str, model: str) -> tuple[ProcessRecord, ...]:
        """Every recorded server of that tenant and model, dead ones included."""
        owner = {"kind": KIND, "tenant": tenant, "model": model}
        return tuple(server for server in self.processes.all() if owner.items() <= server.attributes.items())

    def client(self, server: ProcessRecord) -> VllmClient:
        key = self.folder(server.attributes["tenant"], server.attributes["model"]).api_key()
        return VllmClient(self.socket(server.name), key)

    def socket(self, server: str) -> Path:
        """Where the server of that name listens; nobody else ever does."""
        return self.home / SOCKETS / socket_of(server)

    def ready(self, server: ProcessRecord) -> bool:
        """Whether it runs, and says that it is healthy."""
        if not self.processes.alive(server):
            return False
        try:
            with self.client(server) as client:
                return client.healthy()
        except VllmUnreachable:
            return False

    def asked(self, server: ProcessRecord) -> bool:
        """Whether anybody has a connection to it, so perhaps a request."""
        return connections_to(socket_of(server.name)) > 0

    def start(self, serving: Serving, *, live_versions: int, log: Log) -> ProcessRecord:
        """Stages its weights, starts a server, and returns while it is still loading.

        Args:
            live_versions: How many versions of the model are to be live at once.

        Raises:
            ServingError: vLLM is not installed, or the weights are not what was promoted.
        """
        if streamed := self._streamed(serving):
            streamed.verify()
        attributes = {
            "kind": KIND,
            "tenant": serving.tenant,
            "model": serving.model,
            "version": serving.version,
            "fingerprint": serving.fingerprint,
            "live_versions": live_versions,
        }
        name = f"{KIND}--{serving.tenant}--{serving.model}--{secrets.token_hex(4)}"
        folder = self.folder(serving.tenant, serving.model)
        with staged(serving, self.store, log) as on_disk:
            command = serve_command(
                serving,
                on_disk.weights,
                listen=("--uds", socket_of(name)),
                executable=str(self.executable),
                live_versions=live_versions,
            )
            try:
                return self.processes.start(
                    name,
                    command=command,
                    env=self._environment(serving, folder),
                    log=folder.log(name),
                    attributes=attributes,
                    holds=on_disk.leases,
                    folder=self._sockets(),
                    own_network=serving.weights == "disk",
                )
            except ProcessError as fault:
                raise ServingError(
                    f"vLLM of {serving.name}: {fault} Is the serve engine installed?"
                ) from fault

    def _sockets(self) -> Path:
        """Closed to others even where an earlier umask was not."""
        folder = self.home / SOCKETS
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        return folder

    def _streamed(self, serving: Serving) -> StreamedModel | None:
        return streamed_model(serving, self.store, self._streaming_cache(serving) / f"{serving.version}.json")

    def _streaming_cache(self, serving: Serving) -> Path:
        return self.folder(serving.tenant, serving.model).path / "streamed"

    def _environment(self, serving: Serving, folder: DeploymentFolder) -> dict[str, str]:
        return serve_environment(
            serving,
            api_key=folder.api_key(),
            executable=self.executable,
            cache=self._streaming_cache(serving),
            inherited=os.environ,
            cores=os.cpu_count() or 1,
        )

    def prove(self, server: ProcessRecord, serving: Serving, log: Log) -> None:
        """Waits until a server is up and has answered every known question as it was answered offline.

        Raises:
            ServingError: It died, was not up in time, or answers differently; the text has the log's end.
        """
        try:
            self.wait_ready(server, serving)
            log(f"vLLM of {serving.name} is up (pid {server.pid}); asking it the known questions.")
            self._ask_known(server, serving)
        except (WaitError, ServingError) as fault:
            raise ServingError(f"{fault}\n{self.log_tail(server)}") from fault

    def wait_ready(self, server: ProcessRecord, serving: Serving) -> None:
        wait_until(
            lambda: self.ready(server),
            what=f"vLLM of {serving.name} version {serving.version} (pid {server.pid})",
            timeout_s=START_TIMEOUT_S,
            failed=lambda: None if self.processes.alive(server) else f"it died: {self.cause(server)}",
        )
        if streamed := self._streamed(serving):
            streamed.require_unchanged()

    def _ask_known(self, server: ProcessRecord, serving: Serving) -> None:
        # Merged, both names are one model. An adapter is loaded once for each of its names.
        names = serving.served_names if serving.mode == "adapter" else serving.served_names[:1]
        for name in names:
            for known in serving.known_answers:
                if found := self.fault(server, serving, name, known):
                    raise ServingError(
                        f"vLLM of {serving.name} does not answer as version {serving.version}: {found}."
                    )

    def fault(self, server: ProcessRecord, serving: Serving, name: str, known: dict[str, Any]) -> str | None:
        """What is wrong with the answer to one known question, None where nothing is."""
        try:
            with self.client(server) as client:
                served = client.answer(name, known)
        except ServingError as fault:
            cause = last_error(self._log_text(server))
            return f"{fault} {cause or ''}".strip()
        if served["digest"] != serving.digest:
            return f"it says that it serves {served['digest']}, not {serving.digest}"
        return difference(known, served)

    def cause(self, server: ProcessRecord) -> str:
        """How a dead server ended; its log's last error too, where that may have ended it."""
        end = self.processes.end(server)
        how = end.text if end else "nobody saw how it ended"
        log = self._log_text(server)
        error = given_up_for(log) if end and end.killed else final_error(log)
        return f"{how}: {error}" if error else how

    def give_up(self, server: ProcessRecord, why: str) -> None:
        """Kills a server that does not answer. Its record and its log say why.

        Raises:
            ServingError: It cannot be killed.
        """
        with server.log.open("a") as log:
            log.write(f"\n{GIVEN_UP}{why}\n")
        try:
            self.processes.kill(server)
        except WaitTimeout as fault:
            raise ServingError(f"vLLM {server.name} does not answer ({why}) and cannot be killed.") from fault

    def log_tail(self, server: ProcessRecord) -> str:
        tail = self._log_text(server).splitlines()[-LOG_TAIL_LINES:]
        return "\n".join([f"The end of its log {server.log}:", *(f"  {line}" for line in tail)])

    def _log_text(self, server: ProcessRecord) -> str:
        try:
            return server.log.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def end(self, server: ProcessRecord, *, answers: bool = True) -> None:
        """Ends a server. What it was asked before it answers still, within `SHUTDOWN_S` seconds.

        Args:
            answers: False for one that does not say that it is well, for which nobody waits.

        Raises:
            ServingError: It cannot be ended.
        """
        try:
            self.processes.stop(server.name, timeout_s=STOP_S if answers else UNWELL_STOP_S)
        except ProcessError as fault:
            who = f"{server.attributes['tenant']}/{server.attributes['model']}"
            raise ServingError(f"vLLM of {who} cannot be ended: {fault}") from fault
        self.socket(server.name).unlink(missing_ok=True)


def socket_of(server: str) -> str:
    """The name of a server's socket in `SOCKETS`: what in its own name is like no other's."""
    return f"{server.rpartition('--')[2]}.sock"


def given_up_for(log: str) -> str | None:
    """Why the platform killed a server, as its log ends; None where it did not."""
    last = next((line for line in reversed(log.splitlines()) if line.strip()), "")
    return last.removeprefix(GIVEN_UP) if last.startswith(GIVEN_UP) else None
