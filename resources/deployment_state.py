"""What is known on disk about a deployment of one tenant and model: which server is the live one.

`deployment.json` is replaced atomically, so every reader sees either the old live server or the new
one, and a crash leaves one of the two. The API key lies beside it, readable by its owner alone.
"""

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from resources.vllm import Serving

STATE_FILE = "deployment.json"
KEY_FILE = "api_key"
LOGS_KEPT = 5

Status = Literal["live", "dead", "starting", "stopped", "absent"]


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A live deployment. `address` takes OpenAI requests below `/v1`; `since` is in epoch seconds."""

    tenant: str
    model: str
    version: str
    digest: str
    address: str
    since: float


@dataclass(frozen=True, kw_only=True)
class DeploymentState:
    """A deployment as it is right now. `why` says, where it is not live, what happened."""

    tenant: str
    model: str
    status: Status
    version: str | None = None
    digest: str | None = None
    address: str | None = None
    since: float | None = None
    why: str | None = None


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What should be live: a serving, and the server (by its process name) that was switched to."""

    serving: Serving
    fingerprint: str
    server: str
    port: int
    since: float
    stopped: bool = False

    @property
    def address(self) -> str:
        return address_of(self.port)

    @property
    def endpoint(self) -> Endpoint:
        served = self.serving
        return Endpoint(
            tenant=served.tenant,
            model=served.model,
            version=served.version,
            digest=served.digest,
            address=self.address,
            since=self.since,
        )


def address_of(port: int) -> str:
    return f"http://127.0.0.1:{port}"


@dataclass(frozen=True, kw_only=True)
class DeploymentFolder:
    """The folder of one tenant and model: `deployment.json`, `api_key` and `logs/`."""

    path: Path

    def read(self) -> Deployment | None:
        """What should be live; None where nothing was ever deployed."""
        try:
            values = json.loads((self.path / STATE_FILE).read_text())
        except FileNotFoundError:
            return None
        return Deployment(**{**values, "serving": serving_from_json(values["serving"])})

    def write(self, deployment: Deployment) -> None:
        """The switch: from here on this is what is live."""
        values = {**vars(deployment), "serving": serving_to_json(deployment.serving)}
        self._replace(STATE_FILE, json.dumps(values, indent=1))

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


def serving_to_json(serving: Serving) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(serving).items()}


def serving_from_json(values: dict[str, Any]) -> Serving:
    folders = ("model_folder", "adapter_folder", "chat_template")
    paths = {name: Path(values[name]) for name in folders if values[name] is not None}
    known = tuple(values["known_answers"])
    # Without `engine` it is from before servings named theirs: readable, and the next deploy replaces it.
    return Serving(**{"engine": "", **values, **paths, "known_answers": known})
