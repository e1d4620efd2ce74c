"""The MLflow server that `MlflowRegistry` talks to: one of our own on this machine, or one that others run.

Our own keeps SQLite and files on the disk, and is one detached process that outlives its starter. Of another
only the address is known (a company's, on PostgreSQL); nothing of it is started or ended.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from resources.consoles.consoles import Console
from resources.mlflow.client import RegistryError
from resources.processes.environment import inherited
from resources.processes.local_processes import (
    LocalProcesses,
    ProcessError,
    ProcessRecord,
    listens,
    require_free_port,
)
from resources.processes.log_end import log_end
from resources.waiting import WaitError, wait_until

NAME = "mlflow"
TITLE = "MLflow"
MODELS_PAGE = "/#/models"  # its own first page is about other uses of it
PORT_SETTING = "LLM_ASSETS_MLFLOW_PORT"
APP = Path(__file__).with_name("app.py")

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Background jobs would cost eight more processes and ten seconds, for features of no use here.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    # What is registered is an artifact of the store and nothing else.
    "MLFLOW_CREATE_MODEL_VERSION_SOURCE_VALIDATION_REGEX": "^artifact://models/",
}
FOR_CLIENTS = "MLFLOW_TRACKING_"  # addresses, users and passwords


def server_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a server."""
    kept = inherited(environ, prefixes=("MLFLOW_", "PYTHON"))
    return {name: value for name, value in kept.items() if not name.startswith(FOR_CLIENTS)} | ENVIRONMENT


@dataclass(frozen=True, kw_only=True)
class MlflowServer:
    """The server whose database lies in `home`/mlflow, on `port` of this machine.

    `tokens` is the folder of the tokens that open it; see `resources/consoles`.
    """

    home: Path
    port: int
    tokens: Path

    @property
    def console(self) -> Console:
        return Console(name=NAME, title=TITLE, port=self.port, folder=self.folder, tokens=self.tokens)

    @property
    def url(self) -> str:
        return self.console.url

    @property
    def token_file(self) -> Path:
        """What opens it for the registry."""
        return self.console.token_file("full")

    @property
    def folder(self) -> Path:
        return self.home.absolute() / "mlflow"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def start(self) -> ProcessRecord:
        """Starts the server unless it runs, and returns at once; `wait_ready` waits for it.

        Raises:
            RegistryError: The port is taken (names its holder), or a server on another port cannot be ended.
        """
        running = self._running()
        if running and running.attributes["port"] == self.port:
            return running
        try:
            if running:
                self.stop()
            require_free_port(self.port, what="MLflow", setting=PORT_SETTING)
            return self._start()
        except ProcessError as error:
            meanwhile = self._running()
            if meanwhile and meanwhile.attributes["port"] == self.port:
                return meanwhile
            raise RegistryError(str(error)) from error

    def ensure_ready(self) -> str:
        """Starts the server unless it runs, waits until it answers, and gives back its address."""
        self.start()
        return self.wait_ready()

    def wait_ready(self, timeout_s: float = 120) -> str:
        """Waits until the server answers and gives back its address.

        Raises:
            RegistryError: It ended, or did not answer in time; holds the end of its log.
        """
        try:
            return wait_until(
                lambda: self.url if self.ready() else None,
                what=f"MLflow at {self.url}",
                timeout_s=timeout_s,
                failed=lambda: None if self._running() else "its process ended.",
            )
        except WaitError as error:
            raise RegistryError(f"{error} {log_end(self.log)}") from error

    def ready(self) -> bool:
        """Whether this very server, and not another on its port, answers now."""
        running = self._running()
        if running is None or not listens(running, self.port):
            return False
        try:
            headers = self.console.headers("read-only")
            return httpx.get(f"{self.url}/health", headers=headers, timeout=5, trust_env=False).is_success
        except httpx.TransportError:
            return False

    def running(self) -> bool:
        """Whether its process is there, ready or not yet."""
        return self._running() is not None

    def fault(self) -> str | None:
        """Why its process is not there, None while it is."""
        return self._processes.fault(NAME, what="MLflow")

    def start_again(self) -> ProcessRecord:
        """Starts a server that died, after ending what is left of it. Raises as `start` does."""
        self.stop()
        return self.start()

    def stop(self) -> None:
        """Ends the server; nothing to do where none runs."""
        self._processes.stop(NAME)

    def _start(self) -> ProcessRecord:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = (
            *(sys.executable, "-P", str(APP)),  # -P: what lies beside it is no top-level module
            *("--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"),
            *("--artifacts-destination", str(self.folder / "artifacts")),
            *("--port", str(self.port), "--console", str(self.folder), "--tokens", str(self.tokens)),
        )
        env = server_environment(os.environ)
        attributes = {"port": self.port, "url": self.url}
        return self._processes.start(NAME, command=command, env=env, log=self.log, attributes=attributes)

    @property
    def _processes(self) -> LocalProcesses:
        return LocalProcesses(self.home / "processes")

    def _running(self) -> ProcessRecord | None:
        record = self._processes.find(NAME)
        return record if record and self._processes.alive(record) else None


@dataclass(frozen=True, kw_only=True)
class ExistingMlflow:
    """A server that others run at `url`; `token_file` holds a bearer token where it wants one.

    Users and passwords are MLflow's own variables, `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`.
    """

    url: str
    token_file: Path | None = None

    def start(self) -> None:
        """It runs already."""

    def stop(self) -> None:
        """It is not ours to end."""

    def ensure_ready(self) -> str:
        """Waits until it answers and gives back its address; a failure is a RegistryError."""
        return self.wait_ready()

    def wait_ready(self, timeout_s: float = 30) -> str:
        """Raises RegistryError: it did not answer in time."""
        try:
            what = f"MLflow at {self.url}"
            return wait_until(lambda: self.url if self.ready() else None, what=what, timeout_s=timeout_s)
        except WaitError as error:
            raise RegistryError(f"{error} Is LLM_ASSETS_MLFLOW_URL right, and reached from here?") from error

    def ready(self) -> bool:
        """Whether it answers; whether it lets us in, the registry says."""
        try:
            return httpx.get(f"{self.url.rstrip('/')}/health", timeout=5).status_code < 500
        except httpx.TransportError:
            return False


Mlflow = MlflowServer | ExistingMlflow
