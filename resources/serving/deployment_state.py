"""What is known on disk about a deployment of one tenant and model: which servers are live, with what weight.

`deployment.json` is replaced atomically, so every reader sees either the old set of servers or the new
one, and a crash leaves one of the two. The API key lies beside it, readable by its owner alone.
"""

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from resources.serving.routes import WHOLE, Backend, Route
from resources.vllm.program import Serving, VllmError

STATE_FILE = "deployment.json"
KEY_FILE = "api_key"
LOGS_KEPT = 5
SOCKETS = "sockets"
"""The folder in the state folder where servers listen, which is its owner's alone."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A version that is to be live, with its share of the model's requests in percent.

    `aliases` are the names that the registry gives it, by which it can be asked at the gateway.
    """

    serving: Serving
    weight: int = WHOLE
    aliases: tuple[str, ...] = ()


def check_wanted(wanted: tuple[Wanted, ...]) -> None:
    """Raises:
    VllmError: They are not versions of one tenant's model whose weights make up all requests.
    """
    weights = [each.weight for each in wanted]
    names = {each.serving.name for each in wanted}
    versions = {each.serving.version for each in wanted}
    if sum(weights) != WHOLE or min(weights) < 1 or len(names) != 1 or len(versions) != len(wanted):
        listed = ", ".join(f"{each.serving.name} {each.serving.version}: {each.weight} %" for each in wanted)
        raise VllmError(
            f"{listed} cannot be live together: different versions of one tenant's model can, with "
            f"weights from 1 that add up to {WHOLE}."
        )


@dataclass(frozen=True, kw_only=True)
class LiveServer:
    """One version that should be live: its serving, and the server (by its process name) that has it.

    `weight` is its share of the model's requests in percent, `since` in epoch seconds.
    """

    serving: Serving
    fingerprint: str
    server: str
    weight: int
    since: float
    aliases: tuple[str, ...] = ()

    @property
    def socket(self) -> str:
        return socket_of(self.server)

    @property
    def wanted(self) -> Wanted:
        return Wanted(serving=self.serving, weight=self.weight, aliases=self.aliases)

    @property
    def backend(self) -> Backend:
        known = {"version": self.serving.version, "digest": self.serving.digest}
        return Backend(**known, weight=self.weight, since=self.since)


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What should be live of a tenant's model: at least one version, production first."""

    servers: tuple[LiveServer, ...]
    stopped: bool = False

    @property
    def route(self) -> Route:
        first = self.servers[0].serving
        backends = tuple(live.backend for live in self.servers)
        return Route(tenant=first.tenant, model=first.model, backends=backends)

    def find(self, server: str) -> LiveServer | None:
        return next((live for live in self.servers if live.server == server), None)


def socket_of(server: str) -> str:
    """The name of a server's socket in `SOCKETS`: what in its own name is like no other's."""
    return f"{server.rpartition('--')[2]}.sock"


@dataclass(frozen=True, kw_only=True)
class DeploymentFolder:
    """The folder of one tenant and model: `deployment.json`, `api_key` and `logs/`."""

    path: Path

    def read(self) -> Deployment | None:
        """What should be live; None where nothing was ever deployed.

        Raises:
            VllmError: The file was altered, or another release wrote it in a form of its own.
        """
        file = self.path / STATE_FILE
        try:
            return deployment_from_json(json.loads(file.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise VllmError(
                f"{file} is no deployment that this release can read ({type(error).__name__}: {error}). "
                "Its servers go on. Remove the file and run again: this makes it anew, and ends them."
            ) from error

    def write(self, deployment: Deployment) -> None:
        """The switch: from here on this is what is live."""
        self._replace(STATE_FILE, json.dumps(deployment_to_json(deployment), indent=1))

    def api_key(self) -> str:
        """The key that requests need, made at the first call and the same for all versions."""
        try:
            return (self.path / KEY_FILE).read_text()
        except FileNotFoundError:
            self._replace(KEY_FILE, secrets.token_urlsafe(32))
        return (self.path / KEY_FILE).read_text()

    def log(self, server: str) -> Path:
        """Where a new server logs to. Of earlier ones the latest few are kept."""
        logs = self.path / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        earlier = sorted(logs.glob("*.log"), key=lambda file: file.stat().st_mtime)
        for file in earlier[: -(LOGS_KEPT - 1)]:
            file.unlink(missing_ok=True)
        return logs / f"{server}.log"

    def _replace(self, name: str, text: str) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        draft = self.path / f".{name}.{os.getpid()}"
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path / name)


def deployment_to_json(deployment: Deployment) -> dict[str, Any]:
    servers = [{**vars(live), "serving": serving_to_json(live.serving)} for live in deployment.servers]
    return {"servers": servers, "stopped": deployment.stopped}


def deployment_from_json(values: dict[str, Any]) -> Deployment:
    stopped = values.pop("stopped")
    # Without `servers` it is from before several versions could be live.
    every = values.get("servers", [{**values, "weight": WHOLE}])
    return Deployment(servers=tuple(_live_from_json(live) for live in every), stopped=stopped)


def _live_from_json(values: dict[str, Any]) -> LiveServer:
    values.pop("port", None)  # of before servers listened on sockets
    serving, aliases = serving_from_json(values["serving"]), tuple(values.get("aliases", ()))
    return LiveServer(**{**values, "serving": serving, "aliases": aliases})


def serving_to_json(serving: Serving) -> dict[str, Any]:
    values = asdict(serving) | {"leases": [str(lease) for lease in serving.leases]}
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def serving_from_json(values: dict[str, Any]) -> Serving:
    values.pop("port", None)  # of before servers listened on sockets
    folders = ("model_folder", "adapter_folder", "chat_template")
    paths = {name: Path(values[name]) for name in folders if values[name] is not None}
    listed = {
        "known_answers": tuple(values["known_answers"]),
        "leases": tuple(Path(lease) for lease in values.get("leases", ())),
    }
    return Serving(**{**values, **paths, **listed})
