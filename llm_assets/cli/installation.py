"""What every command starts from: the settings, the catalog, and whether the names it was given exist."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from llm_assets.catalog.loading import Catalog, load_catalog
from llm_assets.catalog.mistakes import did_you_mean, one_of
from llm_assets.cli.options import UsageError
from llm_assets.installation.settings import Settings, find_settings

if TYPE_CHECKING:
    from llm_assets.installation.profiles import Profile


@dataclass(frozen=True, kw_only=True)
class Installation:
    """One project with a valid catalog."""

    settings: Settings
    catalog: Catalog

    @cached_property
    def profile(self) -> "Profile":
        from llm_assets.installation.profiles import profile_of  # Dagster, which not every command needs

        return profile_of(self.settings)

    def check_model(self, model: str) -> None:
        """Raises:
        UsageError: The catalog has no such model.
        """
        if model not in self.catalog.models:
            hint = did_you_mean(model, self.catalog.models, otherwise=one_of(self.catalog.models))
            raise UsageError(f"The catalog has no model {model!r}: {hint}")

    def check_names(self, model: str, tenant: str) -> None:
        """Raises:
        UsageError: The catalog has no such model or tenant, or the tenant does not use the model.
        """
        self.check_model(model)
        if tenant not in self.catalog.tenants:
            hint = did_you_mean(tenant, self.catalog.tenants, otherwise=one_of(self.catalog.tenants))
            raise UsageError(f"The catalog has no tenant {tenant!r}: {hint}")
        if model not in self.catalog.tenants[tenant].models:
            raise UsageError(
                f"{tenant} does not use {model}. Add it to `models` in catalog/tenants/{tenant}.yaml."
            )


def installation() -> Installation:
    settings = find_settings()
    return Installation(settings=settings, catalog=load_catalog(settings.catalog))
