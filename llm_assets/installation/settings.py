"""The settings of one installation: each with its name, its default and what it does. Read once.

A setting is an environment variable, a line of `.env` or a line of `installation.yaml`; the first that has it
counts (`files.py`). Nothing else reads these variables. `llm-assets config` prints them, and
docs/reference/settings.md is made from the same table (`table.py`).
"""

import logging
import math
import os
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, WithJsonSchema, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from llm_assets.catalog.mistakes import did_you_mean
from llm_assets.datasets.limits import GIB, MIB, Limits
from llm_assets.installation.files import (
    PREFIX,
    SettingsError,
    load_env_file,
    masked,
    read_env_file,
    read_installation_file,
)
from resources.git.checkouts import PREFIX as GIT
from resources.git.checkouts import GitFolder
from resources.processes import order_limits

CACHE_GIB = 100  # a dozen models of 7 billion parameters in bf16, or adapters by the thousand
NO_SETTINGS = ("LLM_ASSETS_AUTOMATION", "LLM_ASSETS_TEST")
"""How variables begin that are none: the platform sets the first itself, the others are the tests'."""

BUCKETS = ("gs://", "s3://")
CATALOG = Path("cache", "catalog")  # of a catalog in Git, in the state folder
FOLLOWED_S = 20
"""How often a catalog in Git is looked at, at the most."""

PLACES = "Where things lie"
DATASETS = "How much of a dataset is read"
ORDERS = "How much a work order may use"
SIGNING = "Who signs"
ADDRESSES = "Addresses"
AUDIT = "The audit log"


def _size(unit: int) -> BeforeValidator:
    """A number of `unit`s, as what they are together."""
    units = {GIB: "number of GiB", MIB: "number of MiB"}.get(unit, "number")

    def together(given: Any) -> int:
        try:
            number = math.nan if isinstance(given, bool) else float(given)
        except (TypeError, ValueError):
            number = math.nan
        if not 0 < number < math.inf:
            raise ValueError(f"a size; a positive {units} such as {{default}}")
        return round(number * unit)

    return BeforeValidator(together)


def _port(given: Any) -> int:
    text = str(given)
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise ValueError("a port; a number from 1 to 65535")
    return int(text)


def _folder(given: Any) -> Any:
    if not str(given).strip() or (Path(given).exists() and not Path(given).is_dir()):
        raise ValueError("a folder; a path on the node's disk")
    return given


def _server(given: str | None) -> str | None:
    parts = urlsplit(given or "https://none")
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("a server's address; one such as https://mlflow.example.com, without a password,")
    return given


def _catalog(given: str) -> str:
    if given.startswith(GIT):
        GitFolder.at(given, Path())
        return given
    return str(Path(given).absolute())


def _catalog_folder(catalog_at: str, home: Path) -> Path:
    return GitFolder.at(catalog_at, home / CATALOG).path if catalog_at.startswith(GIT) else Path(catalog_at)


def _place(given: str) -> str:
    if given.startswith(BUCKETS):
        return given
    if not given or ":" in given:
        raise ValueError("a folder or a bucket; gs://bucket/folder")
    return str(Path(given).absolute())


def _existing(given: Path | None) -> Path | None:
    if given and not given.is_file():
        raise ValueError("a file; the path of one")
    return given


def _listed(given: Any) -> Any:
    return tuple(filter(None, map(str.strip, given.split(",")))) if isinstance(given, str) else given


NUMBER = WithJsonSchema({"type": "number", "exclusiveMinimum": 0})
NOTHING_IS_NONE = BeforeValidator(lambda given: given or None)
ABSOLUTE = AfterValidator(lambda path: path and path.absolute())
Gib = Annotated[int, _size(GIB), NUMBER]
Mib = Annotated[int, _size(MIB), NUMBER]
Count = Annotated[int, _size(1), NUMBER]
Hours = Annotated[int, _size(3600), NUMBER]
Port = Annotated[
    int, BeforeValidator(_port), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 65535})
]
Folder = Annotated[Path, ABSOLUTE]
File = Annotated[Path | None, NOTHING_IS_NONE, ABSOLUTE]
Text = Annotated[str | None, NOTHING_IS_NONE]
Texts = Annotated[tuple[str, ...], BeforeValidator(_listed)]


def _setting(group: str, what: str, *, by_default: str | None = None, **field: Any) -> Any:
    """A field with its part of the reference, what it is, and its default in words where a value is none."""
    extra: dict[str, Any] = {"group": group, "by_default": by_default}
    return Field(description=what, json_schema_extra=extra, **field)


class Settings(BaseSettings):
    """What one installation was told. Paths are absolute, sizes are in bytes, times in seconds.

    Raises:
        SettingsError: A setting has a value that cannot be used, or does nothing beside the others.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_prefix_target="all",
        extra="forbid",
        frozen=True,
        enable_decoding=False,
        validate_by_name=True,
        validate_by_alias=True,
        validate_default=True,
    )

    root: Folder = _setting(
        PLACES,
        "the project",
        by_default="the nearest folder upwards that holds `workspace.yaml` and `dagster.yaml`",
    )
    catalog_at: Annotated[str, BeforeValidator(str), AfterValidator(_catalog)] = _setting(
        PLACES,
        "[what people write](catalog.md): a folder, or `git+https://…@<branch, tag or commit>#<folder>`",
        by_default="`catalog` in the project",
        alias="catalog",
        default_factory=lambda data: str(data["root"] / "catalog"),
    )
    home: Folder = _setting(
        PLACES,
        "the state folder: everything that the platform keeps on this machine",
        by_default="`.llm-assets` in the project",
        default_factory=lambda data: data["root"] / ".llm-assets",
    )
    landing_zones_at: Annotated[str, BeforeValidator(str), AfterValidator(_place)] = _setting(
        PLACES,
        "where tenants drop their datasets, `<tenant>/<model>/` below: a folder, `gs://…` or `s3://…`",
        by_default="`datasets` in the catalog",
        alias="landing_zones",
        default_factory=lambda data: str(_catalog_folder(data["catalog_at"], data["home"]) / "datasets"),
    )
    store_url: str = _setting(
        PLACES,
        "where artifacts are published: [`file:`, `gs://`, `s3://`, `artifactory+https://`](artifact-store.md)",
        by_default="`file:` + the state folder + `/store`",
        alias="store",
        default_factory=lambda data: f"file:{data['home'] / 'store'}",
    )
    database_url: Text = _setting(
        PLACES,
        "the PostgreSQL through which several machines agree, with its password: "
        "`postgresql://user:password@host/database`",
        by_default="files of this machine",
        default=None,
        repr=False,
    )
    artifact_cache: Annotated[Path, BeforeValidator(_folder), ABSOLUTE] = _setting(
        PLACES,
        "this node's cache of verified artifacts. Set, a store on a disk is read through it too",
        by_default="`cache/artifacts` in the state folder",
        alias="cache",
        default_factory=lambda data: data["home"] / "cache" / "artifacts",
    )
    artifact_cache_bytes: Gib = _setting(
        PLACES, "how large that cache may become, in GiB", alias="cache_gib", default=CACHE_GIB
    )
    engines: Folder = _setting(
        PLACES,
        "the environments of LLaMA-Factory and vLLM; several installations may share them",
        by_default="`engines` in the state folder",
        default_factory=lambda data: data["home"] / "engines",
    )
    torch_index: str | None = _setting(
        PLACES,
        "the package index that PyTorch comes from; a company's mirror of it",
        by_default="PyTorch's own index of CPU builds",
        default=None,
    )
    dataset_bytes: Gib = _setting(
        DATASETS,
        "how large all files of a landing zone may be together, and one file once it is decoded, in GiB",
        alias="dataset_gib",
        default=64,
    )
    dataset_rows: Count = _setting(DATASETS, "how many rows a file may have", default=20_000_000)
    dataset_row_bytes: Mib = _setting(
        DATASETS,
        "how large a row may be, in MiB. Reading takes up to thirty times as much memory",
        alias="dataset_row_mib",
        default=16,
    )
    dataset_memory_bytes: Mib = _setting(
        DATASETS,
        "how much memory the process that decodes Parquet may take, in MiB",
        alias="dataset_memory_mib",
        default=2048,
    )
    order_memory_bytes: Gib = _setting(
        ORDERS,
        "how much memory all processes of a work order may take together, in GiB; mapped files do not count",
        by_default="nine tenths of the machine's",
        alias="order_memory_gib",
        default_factory=lambda: order_limits.MEMORY_BYTES / GIB,
    )
    order_processes: Count = _setting(
        ORDERS,
        "how many processes it may be",
        by_default="64, and 32 more for each core",
        default_factory=lambda: order_limits.PROCESSES,
    )
    order_seconds: Hours = _setting(
        ORDERS,
        "how long it may take",
        by_default="336, two weeks",
        alias="order_hours",
        default=order_limits.SECONDS // 3600,
    )
    keys: Folder = _setting(
        SIGNING,
        "the folder of the signing key and of the trusted public keys",
        by_default="`keys` in the state folder",
        default_factory=lambda data: data["home"] / "keys",
    )
    signer: str = _setting(
        SIGNING,
        "who signs what is published: [`key`, `pkcs11:…`, `sigstore:…`](signatures.md)",
        default="key",
    )
    trusted_identities: str = _setting(SIGNING, "whose Sigstore signatures count", default="")
    ui_port: Port = _setting(
        ADDRESSES, "the port of the Dagster UI, on loopback, opened by [a link](access.md)", default=3000
    )
    mlflow_port: Port = _setting(
        ADDRESSES, "the port of our own MLflow, on loopback, opened by [a link](access.md)", default=5000
    )
    mlflow_url: Annotated[str | None, NOTHING_IS_NONE, AfterValidator(_server)] = _setting(
        ADDRESSES, "the address of an MLflow server that runs already; ours is not started then", default=None
    )
    mlflow_token_file: Annotated[File, AfterValidator(_existing)] = _setting(
        ADDRESSES,
        "the file of the bearer token that opens that server. `MLFLOW_TRACKING_USERNAME` and "
        "`MLFLOW_TRACKING_PASSWORD` count as well",
        default=None,
    )
    gateway_host: str = _setting(
        ADDRESSES,
        "the address that [the gateway](gateway.md) listens at; another than loopback wants a certificate",
        default="127.0.0.1",
    )
    gateway_port: Port = _setting(ADDRESSES, "the gateway's port", default=8080)
    gateway_certificate: File = _setting(
        ADDRESSES, "a PEM file of the gateway's certificate with its chain", default=None
    )
    gateway_key: File = _setting(ADDRESSES, "the PEM file of the certificate's private key", default=None)
    gateway_origins: Annotated[Texts, AfterValidator(lambda texts: tuple(map(str.lower, texts)))] = _setting(
        ADDRESSES,
        "origins of web pages that may ask the gateway from a browser, separated by commas, `*` for all",
        default=(),
    )
    domain: str = _setting(ADDRESSES, "tenants are reached at `<tenant>.llm.<domain>`", default="localhost")
    metrics_port: Port = _setting(
        ADDRESSES, "the port of [the metrics](metrics.md), on loopback", default=9901
    )
    audit_keys: File = _setting(
        AUDIT,
        "where the keys of data subjects lie, apart from the [audit log](audit.md) that they open",
        by_default="`audit/keys` in the state folder",
        default=None,
    )
    audit_store_url: str = _setting(
        AUDIT,
        "where closed segments and heads of the [audit log](audit.md) go; a bucket that locks its objects",
        by_default="`LLM_ASSETS_STORE`",
        alias="audit_store",
        default_factory=lambda data: data["store_url"],
    )
    audit_ner: Texts = _setting(
        AUDIT,
        "installed spaCy models that find [names in texts](personal-data.md#a-model-for-names), "
        "separated by commas",
        default=(),
    )
    personal_data: File = _setting(
        AUDIT, "a file of [further identifiers](personal-data.md#further-identifiers)", default=None
    )
    loki_url: Text = _setting(
        AUDIT, "where records are pushed as well, such as `http://loki:3100`", default=None
    )
    audit_stdout: Annotated[Literal["google"] | None, NOTHING_IS_NONE] = _setting(
        AUDIT,
        "`google`: the collector prints records as Google Cloud Logging's agent reads them",
        default=None,
    )

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            root = Path(given.get("root") or ".")
            complaints = [
                dict(each) for each in error.errors() if each["type"] != "default_factory_not_called"
            ]
            raise SettingsError("\n".join(_said(each, root) for each in complaints)) from error

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *sources: Any, **named: PydanticBaseSettingsSource
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Of these, the first that has a setting: the caller, the environment, `installation.yaml`."""
        given = cast(InitSettingsSource, named["init_settings"])
        root = Path(given.init_kwargs["root"])
        file = read_installation_file(root)
        values = dict(file.values)
        if "root" in values:
            raise SettingsError(f"{file.at('root')}: root does nothing: it is where this file lies.")
        for name, field in cls.model_fields.items():
            key = field.alias or name
            value = values.get(key)
            is_path = field.annotation in (Path, Path | None) or key in ("catalog", "landing_zones")
            if is_path and isinstance(value, str) and ":" not in value:
                values[key] = root / value
        return given, named["env_settings"], InitSettingsSource(settings_cls, init_kwargs=values)

    @model_validator(mode="after")
    def _each_does_something(self) -> "Settings":
        given = self.model_fields_set
        if "mlflow_port" in given and self.mlflow_url:
            raise ValueError(
                "LLM_ASSETS_MLFLOW_PORT does nothing: with LLM_ASSETS_MLFLOW_URL no MLflow is started here. "
                "Unset one."
            )
        if self.mlflow_token_file and not self.mlflow_url:
            raise ValueError(
                "LLM_ASSETS_MLFLOW_TOKEN_FILE does nothing: our own MLflow has its token. "
                "Set LLM_ASSETS_MLFLOW_URL as well, or unset it."
            )
        if "artifact_cache_bytes" in given and self.reads_in_place:
            raise ValueError(
                "LLM_ASSETS_CACHE_GIB does nothing: a store on a disk is read where it lies, without a "
                "cache. Set LLM_ASSETS_CACHE as well, or unset it."
            )
        return self

    @property
    def reads_in_place(self) -> bool:
        """A store on a disk is read where it lies, unless a cache is asked for, as on a node with NFS."""
        return self.store_url.startswith("file:") and "artifact_cache" not in self.model_fields_set

    @property
    def dataset_limits(self) -> Limits:
        """How much of a tenant's dataset is read."""
        return Limits(
            size_bytes=self.dataset_bytes,
            rows=self.dataset_rows,
            row_bytes=self.dataset_row_bytes,
            memory_bytes=self.dataset_memory_bytes,
        )

    @property
    def catalog(self) -> Path:
        """The folder of what people write; of a catalog in Git its files as `follow_catalog` left them."""
        return _catalog_folder(self.catalog_at, self.home)

    def follow_catalog(self) -> str | None:
        """Brings a catalog in Git up to date; what is wrong while an earlier one stays. Nothing for a folder.

        Raises:
            GitError: It could never be fetched.
        """
        if not self.catalog_at.startswith(GIT):
            return None
        return GitFolder.at(self.catalog_at, self.home / CATALOG).follow(every_s=FOLLOWED_S)

    @property
    def landing_zones_url(self) -> str | None:
        """The bucket of the landing zones, None where they are a folder; `llm_assets/landing_zones.py`."""
        return self.landing_zones_at if self.landing_zones_at.startswith(BUCKETS) else None

    @property
    def landing_zones(self) -> Path:
        """The landing zones, or what was fetched of those in a bucket: `<tenant>/<model>/` below."""
        return self.cache / "landing_zones" if self.landing_zones_url else Path(self.landing_zones_at)

    @property
    def experiments(self) -> Path:
        """The recipes that data scientists commit: `<tenant>/<model>/` below."""
        return self.catalog / "experiments"

    @property
    def work(self) -> Path:
        """Scratch of work orders: checkpoints, engine logs. Safe to delete when nothing runs."""
        return self.home / "work"

    @property
    def cache(self) -> Path:
        """What is looked up once and kept: downloads, what was found in datasets. Safe to delete."""
        return self.home / "cache"

    @property
    def dagster_home(self) -> Path:
        """Dagster's own folder."""
        return self.home / "dagster"

    @property
    def processes(self) -> Path:
        """The records of what runs."""
        return self.home / "processes"

    @property
    def locks(self) -> Path:
        """Files whose locks are taken."""
        return self.home / "locks"

    @property
    def console_tokens(self) -> Path:
        """What opens the Dagster UI and MLflow; see `resources/consoles/consoles.py`."""
        return self.keys / "consoles"

    @property
    def audit(self) -> Path:
        """The sealed audit log and the keys of its data subjects; see `resources/audit/places.py`."""
        return self.home / "audit"

    @property
    def promotions(self) -> Path:
        """The signed log of what was promoted; see `resources/mlflow/move_log.py`."""
        return self.home / "promotions"

    @property
    def gateway(self) -> Path:
        """The gateway's folder: its journals, what Envoy follows, its spool."""
        return self.home / "gateway"


KEYS = {field.alias or name: name for name, field in Settings.model_fields.items()}
"""The fields by what a line of `installation.yaml` calls them."""


def variable(key: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + key.upper()


def find_settings() -> Settings:
    """The installation that the working directory lies in.

    Raises:
        SettingsError: No parent folder holds a `workspace.yaml`, there is no catalog, or a setting is wrong.
    """
    root = Path(os.environ["LLM_ASSETS_ROOT"]).absolute() if "LLM_ASSETS_ROOT" in os.environ else _find_root()
    env_file = load_env_file(root)
    if variable("root") in env_file.values:
        place = env_file.at(variable("root"))
        raise SettingsError(f"{place}: LLM_ASSETS_ROOT does nothing: it is where this file lies.")
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in map(variable, KEYS) and not name.startswith(NO_SETTINGS):
            place = f"{env_file.at(name)}: " if name in env_file.values else ""
            hint = did_you_mean(name[len(PREFIX) :], KEYS, otherwise="`llm-assets config` lists all")
            raise SettingsError(f"{place}{name} is no setting; {hint}")
    settings = Settings(root=root)
    if fault := settings.follow_catalog():
        logging.getLogger(__name__).warning(fault)
    if not settings.catalog.is_dir():
        raise SettingsError(
            f"There is no catalog at {settings.catalog}. Set LLM_ASSETS_CATALOG to the folder that holds "
            "base_models/, models/ and tenants/."
        )
    if settings.torch_index is not None:  # read by what installs the engines, which knows no installation
        os.environ["LLM_ASSETS_TORCH_INDEX"] = settings.torch_index
    return settings


def root_of(here: Path) -> Path | None:
    """The project that a folder lies in; None where it lies in none."""
    folders = (here, *here.parents)
    return next(
        (f for f in folders if (f / "workspace.yaml").is_file() and (f / "dagster.yaml").is_file()), None
    )


def _find_root() -> Path:
    here = Path.cwd()
    if root := root_of(here):
        return root
    raise SettingsError(
        f"{here} lies in no llm-assets project (no workspace.yaml and dagster.yaml in it or above). "
        "`llm-assets init` makes it one. Or change to the project's folder, or set LLM_ASSETS_ROOT to it."
    )


def _said(complaint: dict[str, Any], root: Path) -> str:
    """One complaint of pydantic: the setting, where it stands, its value, and what would do."""
    if not complaint["loc"]:
        return str(complaint["ctx"]["error"])
    name = str(complaint["loc"][0])
    key = next((key for key, field in KEYS.items() if name in (key, field)), name)
    value = complaint["input"]
    value = masked(str(value)) if isinstance(value, str | Path) else value
    file, env_file = read_installation_file(root), read_env_file(root)
    if variable(key) in os.environ:
        from_file = env_file.values.get(variable(key)) == os.environ[variable(key)]
        place = f"{env_file.at(variable(key))}: " if from_file else ""
        what = f"{place}{variable(key)}={value!r}"
    elif key in file.lines:
        what = f"{file.at(key)}: {key}: {value!r}"
    else:
        what = f"{variable(key)}={value!r}"
    if complaint["type"] == "extra_forbidden":
        hint = did_you_mean(key, KEYS, otherwise="`llm-assets config` lists all")
        return f"{what} is no setting; {hint}"
    if complaint["type"] == "value_error":
        default = Settings.model_fields[KEYS[key]].get_default(call_default_factory=False)
        return f"{what} is not {str(complaint['ctx']['error']).format(default=default or 1)} is."
    return f"{what} is not taken: {complaint['msg'][0].lower()}{complaint['msg'][1:]}."
