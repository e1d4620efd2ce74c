"""What a key may be given: models and risk classes that its tenant has, by the catalog."""

from collections.abc import Collection, Iterator
from typing import get_args

from llm_assets.catalog.loading import Catalog
from llm_assets.catalog.mistakes import did_you_mean, one_of
from llm_assets.catalog.tenants import RiskClass, TenantEntry
from llm_assets.cli.options import UsageError


def check_rights(
    catalog: Catalog, tenant: str, *, models: Collection[str], risk_classes: Collection[str]
) -> None:
    """Raises:
    UsageError: There is no such tenant, or it does not have one of them; all that is wrong is told.
    """
    if tenant not in catalog.tenants:
        hint = did_you_mean(tenant, catalog.tenants, otherwise=one_of(catalog.tenants))
        raise UsageError(f"The catalog has no tenant {tenant!r}: {hint}")
    entry = catalog.tenants[tenant]
    faults = [
        *_unknown_models(entry, models),
        *_unknown_classes(entry, risk_classes),
        *_unreachable(catalog, entry, models, risk_classes),
    ]
    if faults:
        raise UsageError(f"A key of {tenant} cannot be given that:\n" + "\n".join(faults))


def _unknown_models(tenant: TenantEntry, models: Collection[str]) -> Iterator[str]:
    for model in models:
        if model not in tenant.models:
            hint = did_you_mean(model, tenant.models, otherwise=one_of(tenant.models))
            yield f"- {tenant.name} does not use the model {model!r} (tenants/{tenant.name}.yaml): {hint}"


def _unknown_classes(tenant: TenantEntry, risk_classes: Collection[str]) -> Iterator[str]:
    for each in risk_classes:
        if each not in get_args(RiskClass):
            known = get_args(RiskClass)
            yield f"- {each!r} is no risk class: {did_you_mean(each, known, otherwise=one_of(known))}"
        elif each not in tenant.risk_classes:
            yield (
                f"- {tenant.name} may not ask models of risk class {each} (tenants/{tenant.name}.yaml): "
                f"{one_of(tenant.risk_classes)}"
            )


def _unreachable(
    catalog: Catalog, tenant: TenantEntry, models: Collection[str], risk_classes: Collection[str]
) -> Iterator[str]:
    """A model that the key names and could never ask, because its class is not among the key's."""
    for model in models:
        entry = catalog.models.get(model)
        if entry and model in tenant.models and risk_classes and entry.risk_class not in risk_classes:
            risk_class = entry.risk_class
            yield f"- {model} is of risk class {risk_class}: add --risk-class {risk_class}, or leave it out"
