"""What is known on disk of a deployment of one tenant and model: which backends should be live.

`deployment.json` is replaced in one step, so every reader sees either the old set of backends or the new
one, and a crash leaves one of the two. The API key lies beside it, readable by its owner alone.
"""

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from resources.durable_files import create_file, replace_json
from resources.seams.serving import Backend, Deployment, ServingError, Status

STATE_FILE = "deployment.json"
KEY_FILE = "api_key"
LOGS_KEPT = 5
OBSERVED = ("status", "why")
"""What is looked at, and never written down."""


@dataclass(frozen=True, kw_only=True)
class DeploymentFolder:
    """The folder of one tenant and model: `deployment.json`, `api_key` and `logs/`."""

    path: Path

    def read(self) -> Deployment:
        """What should be live, by its status `live`, `stopped`, or `absent` where nothing was ever deployed.

        Raises:
            ServingError: The file was altered, or another release wrote it in a form of its own.
        """
        tenant, model = self.path.parent.name, self.path.name
        file = self.path / STATE_FILE
        try:
            known = json.loads(file.read_text())
            backends = tuple(
                Backend(**{**each, "aliases": tuple(each["aliases"])}) for each in known["backends"]
            )
            status: Status = "stopped" if known["stopped"] else "live"
            return Deployment(tenant=tenant, model=model, status=status, backends=backends)
        except FileNotFoundError:
            return Deployment(tenant=tenant, model=model, status="absent")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ServingError(
                f"{file} is no deployment that this release can read ({type(error).__name__}: {error}). "
                "Its servers go on. Remove the file and run again: this makes it anew, and ends them."
            ) from error

    def write(self, backends: tuple[Backend, ...], *, stopped: bool = False) -> None:
        """The switch: from here on this is what is live."""
        known = [{k: v for k, v in asdict(each).items() if k not in OBSERVED} for each in backends]
        replace_json(self.path / STATE_FILE, {"backends": known, "stopped": stopped})

    def api_key(self) -> str:
        """The key that requests need, made at the first call and the same for all versions."""
        create_file(self.path / KEY_FILE, secrets.token_urlsafe(32))
        return (self.path / KEY_FILE).read_text()

    def log(self, server: str) -> Path:
        """Where a new server logs to. Of earlier ones the latest few are kept."""
        logs = self.path / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        earlier = sorted(logs.glob("*.log"), key=lambda file: file.stat().st_mtime)
        for file in earlier[: -(LOGS_KEPT - 1)]:
            file.unlink(missing_ok=True)
        return logs / f"{server}.log"
