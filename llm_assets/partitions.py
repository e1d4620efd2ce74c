"""Tenants are partitions: one dynamic set per model, holding the tenants that use it."""

from collections.abc import Iterable

import dagster as dg

from llm_assets.catalog.loading import Catalog
from llm_assets.catalog.names import check_tenant_name


def tenants_of(model: str) -> dg.DynamicPartitionsDefinition:
    return dg.DynamicPartitionsDefinition(name=model)


def add_tenants(instance: dg.DagsterInstance, model: str, tenants: Iterable[str]) -> list[str]:
    """Adds those that are not there yet and returns them; Dagster itself takes any text."""
    known = set(instance.get_dynamic_partitions(model))
    new = [check_tenant_name(tenant) for tenant in tenants if tenant not in known]
    if new:
        instance.add_dynamic_partitions(model, new)
    return new


def tenants_using(catalog: Catalog, model: str) -> list[str]:
    return [tenant.name for tenant in catalog.tenants.values() if model in tenant.models]
