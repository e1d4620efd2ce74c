"""What the catalog says to the gateway: a line of `tenants.jsonl` for each tenant, and whose tokens count."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llm_assets.catalog.models import ModelEntry
from llm_assets.catalog.tenants import TenantEntry
from resources.gateway.journals import Journal
from resources.gateway.jwt_filter import Issuer


def tenant_line(tenant: TenantEntry, models: Mapping[str, ModelEntry]) -> dict[str, Any]:
    """What the gateway needs to know of a tenant. Models that are not served are not among its models."""
    listed = {name: models[name] for name in tenant.models if name in models}
    served = {name: model.risk_class for name, model in listed.items() if model.serving.mode != "none"}
    limits = tenant.limits.model_dump()
    return {
        "tenant": tenant.name,
        "models": {name: {"risk_class": risk_class} for name, risk_class in served.items()},
        "risk_classes": list(tenant.risk_classes),
        "limits": limits if any(limits.values()) else None,
        "jwt": tenant.jwt.model_dump(exclude={"jwks"}) if tenant.jwt else None,
    }


def publish_tenants(
    journal: Journal, tenants: Mapping[str, TenantEntry], models: Mapping[str, ModelEntry]
) -> tuple[str, ...]:
    """Writes what is not in the journal yet; the names of the tenants that changed.

    Raises:
        GatewayError: The journal cannot be read or written.
    """
    wanted = {name: tenant_line(tenant, models) for name, tenant in tenants.items()}
    changed: list[str] = []

    def changes(events: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        known = {event["tenant"]: event for event in events}
        gone = {name: {"tenant": name, "gone": True} for name in known.keys() - wanted.keys()}
        for name, line in (wanted | dict(sorted(gone.items()))).items():
            if known.get(name) != line:
                changed.append(name)
                yield line

    journal.amend(changes)
    return tuple(changed)


def issuers_of(tenants: Mapping[str, TenantEntry], folder: Path) -> tuple[Issuer, ...]:
    """Each issuer once, with the audiences of all its tenants. A relative `file:` starts at `folder`."""
    audiences: dict[tuple[str, str | None], set[str]] = defaultdict(set)
    for tenant in tenants.values():
        if tenant.jwt:
            audiences[tenant.jwt.issuer, tenant.jwt.jwks].add(tenant.jwt.audience)
    return tuple(
        Issuer(
            name=name, audiences=tuple(sorted(audiences[name, source])), key_source=_absolute(source, folder)
        )
        for name, source in sorted(audiences, key=lambda each: each[0])
    )


def _absolute(source: str | None, folder: Path) -> str | None:
    if source is None or not source.startswith("file:"):
        return source
    return f"file:{(folder / source.removeprefix('file:')).resolve()}"
