"""What the catalog says to the gateway: a line of `tenants.jsonl` for each tenant, and whose tokens count."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from llm_assets.catalog.models import ModelEntry
from llm_assets.catalog.tenants import Jwt, TenantEntry
from llm_assets.gateway.catalog_changes import CatalogChanges
from resources.gateway.journals import Journal
from resources.gateway.jwt_filter import Issuer

Line = dict[str, Any]


def tenant_line(tenant: TenantEntry, models: Mapping[str, ModelEntry], folder: Path) -> Line:
    """What the gateway needs to know of a tenant. Models that are not served are not among its models.

    `jwt.provider` is whose keys must have proved a token, so that no others ever count for this tenant.
    """
    jwt = tenant.jwt.model_dump() if tenant.jwt else None
    listed = {name: models[name] for name in tenant.models if name in models}
    served = {name: model.risk_class for name, model in listed.items() if model.serving.mode != "none"}
    limits = tenant.limits.model_dump()
    return {
        "tenant": tenant.name,
        "models": {name: {"risk_class": risk_class} for name, risk_class in served.items()},
        "risk_classes": list(tenant.risk_classes),
        "limits": limits if any(limits.values()) else None,
        "jwt": jwt and jwt | {"provider": issuer_of(jwt, folder).provider},
    }


def publish_tenants(journal: Journal, catalog: CatalogChanges) -> tuple[str, ...]:
    """Writes what is not in the journal yet; the names of the tenants that changed.

    Of tenants that are held back, what the journal says stays.

    Raises:
        GatewayError: The journal cannot be read or written.
    """
    lines = {
        name: tenant_line(tenant, catalog.models, catalog.folder) for name, tenant in catalog.tenants.items()
    }
    changed: list[str] = []

    def changes(events: Iterator[Line]) -> Iterator[Line]:
        known = _last(events)
        left = sorted(known.keys() - lines.keys() - catalog.held)
        gone = {name: {"tenant": name, "gone": True} for name in left}
        for name, line in (lines | gone).items():
            if known.get(name) != line:
                changed.append(name)
                yield line

    journal.amend(changes)
    return tuple(changed)


def tenant_lines(journal: Journal) -> list[Line]:
    """What the gateway was told last of each tenant that is there."""
    return [line for line in _last(journal.events()).values() if not line.get("gone")]


def issuers_in_force(journal: Journal) -> dict[str, Jwt]:
    """By tenant: the issuer that the gateway was told last, whether or not the tenant's file can be read."""
    fields = Jwt.model_fields.keys()
    return {
        line["tenant"]: Jwt(**{name: value for name, value in line["jwt"].items() if name in fields})
        for line in tenant_lines(journal)
        if line["jwt"]
    }


def issuers_of(lines: Iterable[Line], folder: Path) -> tuple[Issuer, ...]:
    """Each issuer once, with the audiences of all its tenants. A relative `file:` starts at `folder`."""
    audiences: dict[Issuer, set[str]] = defaultdict(set)
    for jwt in (line["jwt"] for line in lines if line["jwt"]):
        audiences[issuer_of(jwt, folder)].add(jwt["audience"])
    found = (replace(issuer, audiences=tuple(sorted(each))) for issuer, each in audiences.items())
    return tuple(sorted(found, key=lambda each: (each.name, each.key_source or "")))


def issuer_of(jwt: Line, folder: Path) -> Issuer:
    """The issuer that a tenant's line names, without audiences."""
    return Issuer(name=jwt["issuer"], audiences=(), key_source=_absolute(jwt["jwks"] or "", folder))


def _last(events: Iterable[Line]) -> dict[str, Line]:
    return {event["tenant"]: event for event in events}


def _absolute(source: str, folder: Path) -> str | None:
    """Without following links: what a link leads to changes, and its name is what the line has."""
    if source.startswith("file:"):
        return f"file:{os.path.abspath(folder / source.removeprefix('file:'))}"  # noqa: PTH100  resolve() follows links
    return source or None
