"""Which registered version a command means, and the registry that it asks."""

from collections.abc import Sequence
from typing import Annotated

import typer

from llm_assets.cli.installation import Installation, installation
from llm_assets.cli.options import UsageError
from resources.mlflow.registry import MlflowRegistry, RegisteredVersion

Version = Annotated[
    str | None, typer.Argument(help="A version's label or number; the one in production if left out.")
]


def with_registry(model: str, tenant: str) -> tuple[Installation, MlflowRegistry]:
    """The installation and its registry, which is started if it does not run."""
    here = installation()
    here.check_names(model, tenant)
    here.profile.mlflow.ensure_ready()
    return here, here.profile.registry


def by_name(versions: Sequence[RegisteredVersion], name: str) -> RegisteredVersion:
    """The version with that label or number.

    Raises:
        UsageError: There is none; names those that there are.
    """
    for version in versions:
        if name in (str(version.number), version.label):
            return version
    raise UsageError(f"There is no version {name}; {_known(versions)}")


def by_alias(versions: Sequence[RegisteredVersion], alias: str) -> RegisteredVersion:
    """The version that an alias points to.

    Raises:
        UsageError: The alias points nowhere.
    """
    for version in versions:
        if alias in version.aliases:
            return version
    raise UsageError(f"No version is {alias}; {_known(versions)}")


def named_or_production(
    registry: MlflowRegistry, model: str, tenant: str, name: str | None
) -> RegisteredVersion:
    versions = registry.versions(tenant, model)
    return by_alias(versions, "production") if name is None else by_name(versions, name)


def _known(versions: Sequence[RegisteredVersion]) -> str:
    if not versions:
        return "nothing is registered yet: `llm-assets run MODEL --tenant TENANT` makes a version."
    return "there is " + ", ".join(f"{each.number} ({each.label})" for each in versions[:10]) + "."
