"""vLLM servers as processes of this machine: started on a port of their own, proven, ended.

Which of them is the live one is none of this module's business: see `serving`.
"""

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from resources.names import MODEL, TENANT
from resources.processes.local_processes import (
    LocalProcesses,
    ProcessError,
    ProcessRecord,
    listens,
    port_is_free,
    require_free_port,
)
from resources.serving.deployment_state import DeploymentFolder, address_of
from resources.vllm.answers import difference
from resources.vllm.client import VllmClient
from resources.vllm.program import (
    SHUTDOWN_S,
    Serving,
    VllmError,
    final_error,
    last_error,
    serve_command,
    serve_environment,
    settings_fingerprint,
)
from resources.vllm.streamed_weights import StreamedModel
from resources.waiting import WaitError, wait_until

KIND = "vllm"
START_TIMEOUT_S = 900
STOP_S = SHUTDOWN_S + 10
PORT_TURN_S = 120
PORTS = range(20_000, 32_768)  # below Linux's ephemeral ports (net.ipv4.ip_local_port_range)
LOG_TAIL_LINES = 12
Log = Callable[[str], Any]


@dataclass(frozen=True, kw_only=True)
class VllmServers:
    """The servers of one installation. `home` is its state folder, `executable` the `vllm` program."""

    home: Path
    executable: Path

    @property
    def processes(self) -> LocalProcesses:
        return LocalProcesses(self.home / "processes")

    def folder(self, tenant: str, model: str) -> DeploymentFolder:
        if not (TENANT.fullmatch(tenant) and MODEL.fullmatch(model)):
            raise VllmError(f"{tenant!r}/{model!r} is not the name of a tenant and a model.")
        return DeploymentFolder(path=self.home / "serving" / tenant / model)

    def of(self, tenant: str, model: str) -> tuple[ProcessRecord, ...]:
        """Every recorded server of that tenant and model, dead ones included."""
        owner = {"kind": KIND, "tenant": tenant, "model": model}
        return tuple(server for server in self.processes.all() if owner.items() <= server.attributes.items())

    def client(self, server: ProcessRecord) -> VllmClient:
        key = self.folder(server.attributes["tenant"], server.attributes["model"]).api_key()
        return VllmClient(address_of(server.attributes["port"]), key)

    def ready(self, server: ProcessRecord) -> bool:
        """Whether it listens itself (another on its port is not it) and says that it is healthy."""
        if not (self.processes.alive(server) and listens(server, server.attributes["port"])):
            return False
        with self.client(server) as client:
            return client.healthy()

    def start(
        self,
        serving: Serving,
        *,
        port: int | None,
        live_versions: int,
        beside: ProcessRecord | None = None,
    ) -> ProcessRecord:
        """Starts a server and returns while it is still loading.

        Args:
            port: None for any free one.
            live_versions: How many versions of the model are to be live at once.
            beside: A server of this deployment that is to be replaced; its port may be shared for the switch.

        Raises:
            VllmError: The port is taken, vLLM is not installed, or what is to be streamed is not what was
                promoted.
        """
        self._require_promoted(serving)
        attributes = {
            "kind": KIND,
            "tenant": serving.tenant,
            "model": serving.model,
            "version": serving.version,
            "fingerprint": settings_fingerprint(serving),
            "live_versions": live_versions,
        }
        name = f"{KIND}--{serving.tenant}--{serving.model}--{secrets.token_hex(4)}"
        folder = self.folder(serving.tenant, serving.model)
        with self._choosing_a_port():
            chosen = self._free_port() if port is None else self._claimed(port, serving, beside)
            try:
                return self.processes.start(
                    name,
                    command=serve_command(
                        serving, port=chosen, executable=self.executable, live_versions=live_versions
                    ),
                    env=self._environment(serving, folder),
                    log=folder.log(name),
                    attributes={**attributes, "port": chosen},
                    holds=serving.leases,
                )
            except ProcessError as fault:
                raise VllmError(f"vLLM of {serving.name}: {fault} Is the serve engine installed?") from fault

    def _require_promoted(self, serving: Serving) -> None:
        if streamed := self._streamed(serving):
            streamed.verify()

    def _streamed(self, serving: Serving) -> StreamedModel | None:
        if serving.model_uri is None or serving.model_digest is None:
            return None
        seal = self._streaming_cache(serving) / f"{serving.version}.json"
        return StreamedModel(uri=serving.model_uri, digest=serving.model_digest, seal=seal)

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

    @contextlib.contextmanager
    def _choosing_a_port(self) -> Iterator[None]:
        """vLLM shares its port with any other vLLM that asks (SO_REUSEPORT), so none may be chosen twice."""
        locks = self.home / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(locks / "ports.lock")
        try:
            lock.acquire(timeout=PORT_TURN_S)
        except filelock.Timeout as fault:
            raise VllmError(
                f"Another start of vLLM has held {lock.lock_file} for over {PORT_TURN_S} s. "
                "End that process (`fuser` names it), then try again."
            ) from fault
        try:
            yield
        finally:
            lock.release()

    def _free_port(self) -> int:
        """A chance one of those that the system gives to nobody by itself: vLLM takes seconds to listen."""
        recorded = {server.attributes.get("port") for server in self.processes.all()}
        while True:
            port = PORTS.start + secrets.randbelow(len(PORTS))
            if port not in recorded and port_is_free(port):
                return port

    def _claimed(self, port: int, serving: Serving, beside: ProcessRecord | None) -> int:
        if beside and beside.attributes["port"] == port:
            return port
        for other in self.processes.all():
            if other.attributes.get("port") == port and self.processes.alive(other):
                raise VllmError(
                    f"vLLM of {serving.name} cannot listen on port {port}: {other.name} (pid {other.pid}) "
                    "has it. Tenants of one model need free ports: leave serving.port out."
                )
        try:
            require_free_port(
                port, what=f"vLLM of {serving.name}", setting=f"serving.port of {serving.model}"
            )
        except ProcessError as fault:
            raise VllmError(str(fault)) from fault
        return port

    def prove(self, server: ProcessRecord, serving: Serving, log: Log) -> None:
        """Waits until a server is up and has answered every known question as it was answered offline.

        Raises:
            VllmError: It died, was not up in time, or answers differently; the text has the log's end.
        """
        try:
            self.wait_ready(server, serving)
            log(f"vLLM of {serving.name} is up (pid {server.pid}); asking it the known questions.")
            self._ask_known(server, serving)
        except (WaitError, VllmError) as fault:
            raise VllmError(f"{fault}\n{self.log_tail(server)}") from fault

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
                    raise VllmError(
                        f"vLLM of {serving.name} does not answer as version {serving.version}: {found}."
                    )

    def fault(self, server: ProcessRecord, serving: Serving, name: str, known: dict[str, Any]) -> str | None:
        """What is wrong with the answer to one known question, None where nothing is."""
        try:
            with self.client(server) as client:
                served = client.answer(name, known)
        except VllmError as fault:
            cause = last_error(self._log_text(server))
            return f"{fault} {cause or ''}".strip()
        if served["digest"] != serving.digest:
            return f"it says that it serves {served['digest']}, not {serving.digest}"
        return difference(known, served)

    def cause(self, server: ProcessRecord) -> str:
        """How a dead server ended; its log's last error too, where that may have ended it."""
        end = self.processes.end(server)
        how = end.text if end else "nobody saw how it ended"
        error = None if end and end.killed else final_error(self._log_text(server))
        return f"{how}: {error}" if error else how

    def log_tail(self, server: ProcessRecord) -> str:
        tail = self._log_text(server).splitlines()[-LOG_TAIL_LINES:]
        return "\n".join([f"The end of its log {server.log}:", *(f"  {line}" for line in tail)])

    def _log_text(self, server: ProcessRecord) -> str:
        try:
            return server.log.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def busy(self, server: ProcessRecord) -> bool:
        """Whether it says that it has requests. One that cannot say is not."""
        if not self.ready(server):
            return False
        with self.client(server) as client, contextlib.suppress(VllmError):
            return client.in_flight() > 0
        return False

    def end(self, server: ProcessRecord) -> None:
        """Ends a server. What it was asked before it answers still, within `SHUTDOWN_S` seconds.

        Raises:
            VllmError: It cannot be ended.
        """
        try:
            self.processes.stop(server.name, timeout_s=STOP_S)
        except ProcessError as fault:
            who = f"{server.attributes['tenant']}/{server.attributes['model']}"
            raise VllmError(f"vLLM of {who} cannot be ended: {fault}") from fault
