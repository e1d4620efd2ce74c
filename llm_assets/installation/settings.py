"""Where one installation keeps its things: the project root, the catalog, and the state folder.

Every path of the embedded default hangs off `Settings`; nothing else reads these environment
variables. `LLM_ASSETS_ROOT`, `LLM_ASSETS_CATALOG` and `LLM_ASSETS_HOME` move the three folders,
`LLM_ASSETS_ENGINES` shares the engine environments between several installations, `LLM_ASSETS_STORE` is where
artifacts are published, `LLM_ASSETS_CACHE` and `LLM_ASSETS_CACHE_GIB` are the node's cache of them,
`LLM_ASSETS_KEYS` is the folder of keys, `LLM_ASSETS_SIGNER` and `LLM_ASSETS_TRUSTED_IDENTITIES` say who signs
and whose signature counts. `LLM_ASSETS_GATEWAY_HOST`, `LLM_ASSETS_GATEWAY_PORT`,
`LLM_ASSETS_GATEWAY_CERTIFICATE`, `LLM_ASSETS_GATEWAY_KEY`, `LLM_ASSETS_GATEWAY_ORIGINS`,
`LLM_ASSETS_DOMAIN` and `LLM_ASSETS_METRICS_PORT` are the gateway's, `LLM_ASSETS_AUDIT_STORE`,
`LLM_ASSETS_AUDIT_KEYS`, `LLM_ASSETS_AUDIT_NER`, `LLM_ASSETS_LOKI_URL` and `LLM_ASSETS_AUDIT_STDOUT` the audit
log's (docs/reference/audit.md).
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

from llm_assets.datasets.limits import (
    GIB,
    MEMORY_SETTING,
    MIB,
    ROW_SETTING,
    ROWS_SETTING,
    SIZE_SETTING,
    Limits,
)
from resources.errors import InputError
from resources.processes import order_limits

CACHE_GIB = 100  # a dozen models of 7 billion parameters in bf16, or adapters by the thousand


class SettingsError(InputError):
    """No installation was found, or a setting has a value that cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The folders of one installation, all absolute."""

    root: Path
    catalog: Path
    home: Path

    @property
    def engines(self) -> Path:
        """The virtual environments of the engines, one folder each (`train`, `serve`)."""
        return Path(os.environ.get("LLM_ASSETS_ENGINES", self.home / "engines")).absolute()

    @property
    def landing_zones(self) -> Path:
        """Where tenants drop their datasets: `<tenant>/<model>/` below."""
        return self.catalog / "datasets"

    @property
    def experiments(self) -> Path:
        """The recipes that data scientists commit: `<tenant>/<model>/` below."""
        return self.catalog / "experiments"

    @property
    def store_url(self) -> str:
        """Where artifacts are published: `file:/…`, `gs://…`, `s3://…` or `artifactory+https://…`."""
        return os.environ.get("LLM_ASSETS_STORE", f"file:{self.home / 'store'}")

    @property
    def audit_store_url(self) -> str:
        """Where closed segments and heads of the audit log are published; the artifact store by itself."""
        return os.environ.get("LLM_ASSETS_AUDIT_STORE", self.store_url)

    @property
    def work(self) -> Path:
        """Scratch of work orders: checkpoints, engine logs. Safe to delete when nothing runs."""
        return self.home / "work"

    @property
    def cache(self) -> Path:
        return self.home / "cache"

    @property
    def reads_in_place(self) -> bool:
        """A store on a disk is read where it lies, unless a cache is asked for, as on a node with NFS."""
        return self.store_url.startswith("file:") and "LLM_ASSETS_CACHE" not in os.environ

    @property
    def artifact_cache(self) -> Path:
        """The node's cache of verified artifacts; on a fast disk, shared by all containers of the node."""
        text = os.environ.get("LLM_ASSETS_CACHE", str(self.cache / "artifacts"))
        folder = Path(text).absolute()
        if not text.strip() or (folder.exists() and not folder.is_dir()):
            raise SettingsError(f"LLM_ASSETS_CACHE={text!r} is not a folder; a path on the node's disk is.")
        return folder

    @property
    def artifact_cache_bytes(self) -> int:
        """How large the node's cache may become."""
        return _size("LLM_ASSETS_CACHE_GIB", GIB, CACHE_GIB * GIB)

    @property
    def usage(self) -> Path:
        """Who used how much, a table a day; see `llm_assets/usage.py`."""
        return self.home / "usage"

    @property
    def dataset_limits(self) -> Limits:
        """How much of a tenant's dataset is read."""
        usual = Limits()
        return Limits(
            size_bytes=_size(SIZE_SETTING, GIB, usual.size_bytes),
            rows=_size(ROWS_SETTING, 1, usual.rows),
            row_bytes=_size(ROW_SETTING, MIB, usual.row_bytes),
            memory_bytes=_size(MEMORY_SETTING, MIB, usual.memory_bytes),
        )

    @property
    def order_memory_bytes(self) -> int:
        """How much memory the processes of a work order may take together."""
        return _size(order_limits.MEMORY_SETTING, GIB, order_limits.MEMORY_BYTES)

    @property
    def order_processes(self) -> int:
        """How many processes a work order may have."""
        return _size(order_limits.PROCESSES_SETTING, 1, order_limits.PROCESSES)

    @property
    def order_seconds(self) -> int:
        """How long a work order may take."""
        return _size(order_limits.HOURS_SETTING, 3600, order_limits.SECONDS)

    @property
    def dagster_home(self) -> Path:
        return self.home / "dagster"

    @property
    def processes(self) -> Path:
        return self.home / "processes"

    @property
    def locks(self) -> Path:
        return self.home / "locks"

    @property
    def keys(self) -> Path:
        """The signing key and the public keys that are trusted; see `resources/signing/keys.py`."""
        return Path(os.environ.get("LLM_ASSETS_KEYS", self.home / "keys")).absolute()

    @property
    def console_tokens(self) -> Path:
        """What opens the Dagster UI and MLflow; see `resources/consoles/consoles.py`."""
        return self.keys / "consoles"

    @property
    def signer(self) -> str:
        """Who signs what is published; see `resources/signing/signers.py`."""
        return os.environ.get("LLM_ASSETS_SIGNER", "key")

    @property
    def trusted_identities(self) -> str:
        """Whose Sigstore signatures are trusted; see `resources/signing/signers.py`."""
        return os.environ.get("LLM_ASSETS_TRUSTED_IDENTITIES", "")

    @property
    def audit(self) -> Path:
        """The sealed audit log and the keys of its data subjects; see `resources/audit/places.py`."""
        return self.home / "audit"

    @property
    def audit_keys(self) -> Path | None:
        """Where the keys of its data subjects lie, if apart from it: another folder or mount."""
        return _file("LLM_ASSETS_AUDIT_KEYS")

    @property
    def promotions(self) -> Path:
        """The signed log of what was promoted; see `resources/mlflow/move_log.py`."""
        return self.home / "promotions"

    @property
    def audit_ner(self) -> tuple[str, ...]:
        """Installed spaCy models that find names in texts, beside those that the words around them tell."""
        return tuple(filter(None, map(str.strip, os.environ.get("LLM_ASSETS_AUDIT_NER", "").split(","))))

    @property
    def personal_data(self) -> Path | None:
        """The file of further identifiers; see `llm_assets/identifiers_file.py`."""
        path = os.environ.get("LLM_ASSETS_PERSONAL_DATA")
        return Path(path).absolute() if path else None

    @property
    def loki_url(self) -> str | None:
        """Where audit records are pushed as well: `http://loki:3100`."""
        return os.environ.get("LLM_ASSETS_LOKI_URL") or None

    @property
    def audit_stdout(self) -> str | None:
        """`google`: the collector prints audit records as Google Cloud Logging's agent takes them."""
        form = os.environ.get("LLM_ASSETS_AUDIT_STDOUT") or None
        if form not in (None, "google"):
            raise SettingsError(f"LLM_ASSETS_AUDIT_STDOUT={form!r} is not taken; google is, or nothing.")
        return form

    @property
    def ui_port(self) -> int:
        return _port("LLM_ASSETS_UI_PORT", 3000)

    @property
    def mlflow_port(self) -> int:
        return _port("LLM_ASSETS_MLFLOW_PORT", 5000)

    @property
    def gateway(self) -> Path:
        """The gateway's folder: its journals, what Envoy follows, its spool."""
        return self.home / "gateway"

    @property
    def gateway_host(self) -> str:
        """The address it listens at; another than loopback is refused without TLS."""
        return os.environ.get("LLM_ASSETS_GATEWAY_HOST", "127.0.0.1")

    @property
    def gateway_port(self) -> int:
        return _port("LLM_ASSETS_GATEWAY_PORT", 8080)

    @property
    def gateway_certificate(self) -> Path | None:
        """A PEM file with the certificate and its chain; None for plain HTTP."""
        return _file("LLM_ASSETS_GATEWAY_CERTIFICATE")

    @property
    def gateway_key(self) -> Path | None:
        """The PEM file of the certificate's private key."""
        return _file("LLM_ASSETS_GATEWAY_KEY")

    @property
    def gateway_origins(self) -> tuple[str, ...]:
        """Web pages that may ask the gateway from a browser, as the browser names them (lower case)."""
        listed = os.environ.get("LLM_ASSETS_GATEWAY_ORIGINS", "").split(",")
        return tuple(origin.strip().lower() for origin in listed if origin.strip())

    @property
    def domain(self) -> str:
        """Tenants are reached at `<tenant>.llm.<domain>`."""
        return os.environ.get("LLM_ASSETS_DOMAIN", "localhost")

    @property
    def metrics_port(self) -> int:
        return _port("LLM_ASSETS_METRICS_PORT", 9901)


def find_settings() -> Settings:
    """The installation that the working directory lies in.

    Raises:
        SettingsError: No parent folder holds a `workspace.yaml`, or the catalog is missing.
    """
    root = Path(os.environ["LLM_ASSETS_ROOT"]).absolute() if "LLM_ASSETS_ROOT" in os.environ else _find_root()
    catalog = Path(os.environ.get("LLM_ASSETS_CATALOG", root / "catalog")).absolute()
    if not catalog.is_dir():
        raise SettingsError(
            f"There is no catalog at {catalog}. Set LLM_ASSETS_CATALOG to the folder that holds "
            "base_models/, models/ and tenants/."
        )
    home = Path(os.environ.get("LLM_ASSETS_HOME", root / ".llm-assets")).absolute()
    return Settings(root=root, catalog=catalog, home=home)


def _find_root() -> Path:
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "workspace.yaml").is_file() and (folder / "dagster.yaml").is_file():
            return folder
    raise SettingsError(
        f"{here} lies in no llm-assets project (no workspace.yaml and dagster.yaml in it or above). "
        "Change to the project's folder, or set LLM_ASSETS_ROOT to it."
    )


def _size(variable: str, unit: int, default: int) -> int:
    """A number of `unit`s, as what they are together."""
    text = os.environ.get(variable, str(default / unit))
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        units = {GIB: "number of GiB", MIB: "number of MiB"}.get(unit, "number")
        raise SettingsError(
            f"{variable}={text!r} is not a size; a positive {units} such as {default // unit} is."
        )
    return round(number * unit)


def _file(variable: str) -> Path | None:
    text = os.environ.get(variable, "")
    return Path(text).absolute() if text else None


def _port(variable: str, default: int) -> int:
    text = os.environ.get(variable, str(default))
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise SettingsError(f"{variable}={text!r} is not a port; a number from 1 to 65535 is.")
    return int(text)
