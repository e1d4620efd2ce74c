"""What the registry holds of a version: the entry that goes in and the registered version that comes out.

A version is one MLflow model version: its source is the artifact's address, everything else that
is known about it is a tag. What counts is the signed log (`resources/mlflow/move_log.py`); MLflow shows it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from resources.mlflow.client import RegistryError
from resources.names import MODEL, TENANT, VERSION

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

DESCRIPTION_CHARACTERS = 5000  # MLflow's column
MODELS_A_PAGE = 1000
VERSIONS_A_PAGE = 10_000


@dataclass(frozen=True, kw_only=True)
class RegistryEntry:
    """A merged model that is to be registered. Digests are `sha256:…`; `None` is written as no tag."""

    tenant: str
    model: str
    version: str  # the label of the artifact: unique, sorts by time
    digest: str
    base_model: str
    base_digest: str
    dataset_digest: str
    recipe_digest: str  # the fingerprint of the training
    owner: str
    risk_class: str
    purpose: str
    adapter_digest: str | None = None
    card_digest: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    engine_versions: Mapping[str, str] = field(default_factory=dict)
    dagster_runs: Mapping[str, str] = field(default_factory=dict)  # asset name -> run id
    training_run_id: str | None = None  # what log_training gave back
    description: str = ""  # Markdown, of this version
    model_description: str = ""  # Markdown, of the model that it is a version of

    def __post_init__(self) -> None:
        check_names(self.tenant, self.model)
        if not VERSION.fullmatch(self.version):
            raise RegistryError(f"{self.version!r} cannot be the label of a version of {self.model}.")

    @property
    def source(self) -> str:
        return address_of(self.tenant, self.model, self.version)

    @property
    def follows(self) -> dict[str, str]:
        """The tags of a registered version that follow a new entry: its files never change, its card may."""
        return {"card_digest": self.card_digest} if self.card_digest else {}

    @property
    def tags(self) -> dict[str, str]:
        known = {
            name: getattr(self, name)
            for name in (
                *("tenant", "model", "version", "digest", "base_model", "base_digest", "dataset_digest"),
                *("recipe_digest", "adapter_digest", "card_digest", "owner", "risk_class", "purpose"),
            )
        }
        known |= {f"metric.{name}": repr(float(value)) for name, value in self.metrics.items()}
        known |= {f"engine.{name}": version for name, version in self.engine_versions.items()}
        known |= {f"dagster_run.{asset}": run_id for asset, run_id in self.dagster_runs.items()}
        return {name: str(value) for name, value in known.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class RegisteredVersion:
    """A version as the signed log has it now, its tags too; what MLflow was made to say is not in it."""

    tenant: str
    model: str
    number: int  # MLflow's own count, from 1
    label: str
    source: str
    digest: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]


def check_names(tenant: str, model: str) -> None:
    if not TENANT.fullmatch(tenant):
        raise RegistryError(
            f"{tenant!r} cannot be a tenant: lower-case letters, digits and hyphens, at most 63."
        )
    if not MODEL.fullmatch(model):
        raise RegistryError(
            f"{model!r} cannot be a model: lower-case letters, digits and underscores, at most 63."
        )


def registered_name(tenant: str, model: str) -> str:
    """What a tenant's model is called in MLflow, which allows no slash in a name."""
    check_names(tenant, model)
    return f"{tenant}.{model}"


def is_registered_name(name: str) -> bool:
    tenant, _, model = name.partition(".")
    return bool(TENANT.fullmatch(tenant) and MODEL.fullmatch(model))


def is_own(version: "ModelVersion") -> bool:
    """Whether its source is an artifact of the tenant and model that it is registered of."""
    tenant, _, model = str(version.name).partition(".")
    home, _, label = str(version.source).rpartition("/")
    return f"{home}/{label}" == address_of(tenant, model, label) and bool(VERSION.fullmatch(label))


def every_model(client: "MlflowClient") -> Iterator["RegisteredModel"]:
    """All registered models with their aliases and tags, by name."""
    return _pages(lambda token: client.search_registered_models(max_results=MODELS_A_PAGE, page_token=token))


def every_version(client: "MlflowClient", name: str = "") -> Iterator["ModelVersion"]:
    """All versions with their tags, of that registered model or of all."""
    query = f"name = '{name}'" if name else ""
    return _pages(
        lambda token: client.search_model_versions(query, max_results=VERSIONS_A_PAGE, page_token=token)
    )


def _pages(page_of: Callable[[str | None], Any]) -> Iterator[Any]:
    token = None
    while True:
        page = page_of(token)
        yield from page
        token = page.token
        if not token:
            return


def address_of(tenant: str, model: str, label: str) -> str:
    """Where the artifact of a version is."""
    return f"artifact://models/{tenant}/{model}/{label}"
