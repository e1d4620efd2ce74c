"""What the registry holds of a version: the entry that goes in and the registered version that comes out.

A version is one MLflow model version: its source is the artifact's address, everything else that
is known about it is a tag. A version's tags are written in the same request that makes it, so an entry is
there with all of them or not at all.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from resources.mlflow.client import RegistryError
from resources.names import MODEL, TENANT, VERSION

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

DESCRIPTION_CHARACTERS = 5000  # MLflow's column
MODELS_A_PAGE = 1000


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
        return f"{_home(self.tenant, self.model)}/{self.version}"

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
    """A version as the registry has it now."""

    tenant: str
    model: str
    number: int  # MLflow's own count, from 1
    label: str
    source: str
    digest: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]

    @property
    def metrics(self) -> dict[str, float]:
        return {
            name.removeprefix("metric."): float(value)
            for name, value in self.tags.items()
            if name.startswith("metric.")
        }


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


def find_model(client: "MlflowClient", name: str) -> "RegisteredModel | None":
    """The registered model with its aliases and tags, or None where there is none yet."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def every_model(client: "MlflowClient") -> Iterator["RegisteredModel"]:
    """All registered models with their aliases and tags, by name."""
    token = None
    while True:
        page = client.search_registered_models(max_results=MODELS_A_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def get_version(client: "MlflowClient", tenant: str, model: str, number: int) -> RegisteredVersion:
    """The version with that number, which must exist."""
    version = client.get_model_version(name := registered_name(tenant, model), str(number))
    line = client.get_registered_model(name)
    aliases = tuple(alias for alias, of in line.aliases.items() if int(of) == number)
    return _registered(tenant, model, version, aliases)


def find_versions(client: "MlflowClient", tenant: str, model: str, also: str = "") -> list[RegisteredVersion]:
    """All versions, newest first; `also` narrows them in MLflow's filter language."""
    line = find_model(client, name := registered_name(tenant, model))
    if line is None:
        return []
    numbers = {alias: int(number) for alias, number in line.aliases.items()}  # a search tells no aliases
    found = [
        _registered(
            tenant, model, each, tuple(alias for alias, of in numbers.items() if of == int(each.version))
        )
        for each in _pages(client, f"name = '{name}'{also and ' and '}{also}")
    ]
    return sorted(found, key=lambda version: version.number, reverse=True)


def find_by_source(client: "MlflowClient", entry: RegistryEntry) -> RegisteredVersion | None:
    """The version of that artifact. A request that was sent twice may have made two: the first one counts."""
    found = find_versions(client, entry.tenant, entry.model, f"source_path = '{entry.source}'")
    return found[-1] if found else None


def _pages(client: "MlflowClient", query: str) -> Iterator["ModelVersion"]:
    token = None
    while True:
        page = client.search_model_versions(query, max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _home(tenant: str, model: str) -> str:
    """Where the artifacts of a tenant's model are."""
    return f"artifact://models/{tenant}/{model}"


def _registered(
    tenant: str, model: str, version: "ModelVersion", aliases: tuple[str, ...]
) -> RegisteredVersion:
    if str(version.source).rpartition("/")[0] != _home(tenant, model):
        raise RegistryError(
            f"Version {version.version} of {registered_name(tenant, model)} is not of {model} of {tenant}: "
            f"its source is {version.source}. Somebody registered it by hand; delete that version in MLflow."
        )
    return RegisteredVersion(
        tenant=tenant,
        model=model,
        number=int(version.version),
        label=version.tags.get("version", str(version.version)),
        source=version.source,
        digest=version.tags.get("digest", ""),
        aliases=tuple(sorted(aliases)),
        tags=dict(version.tags),
    )
