"""What the catalog says to the gateway: a line of `tenants.jsonl` for each tenant, and whose tokens count."""

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llm_assets.catalog.models import ModelEntry
from llm_assets.catalog.tenants import TenantEntry
from resources.gateway.journals import Journal
from resources.gateway.jwt_filter import Issuer

Line = dict[str, Any]


def tenant_line(tenant: TenantEntry, models: Mapping[str, ModelEntry]) -> Line:
    """What the gateway needs to know of a tenant. Models that are not served are not among its models."""
    listed = {name: models[name] for name in tenant.models if name in models}
    served = {name: model.risk_class for name, model in listed.items() if model.serving.mode != "none"}
    limits = tenant.limits.model_dump()
    return {
        "tenant": tenant.name,
        "models": {name: {"risk_class": risk_class} for name, risk_class in served.items()},
        "risk_classes": list(tenant.risk_classes),
        "limits": limits if any(limits.values()) else None,
        "jwt": tenant.jwt.model_dump() if tenant.jwt else None,
    }


def publish_tenants(
    journal: Journal,
    tenants: Mapping[str, TenantEntry],
    models: Mapping[str, ModelEntry],
    *,
    held: Container[str] = (),
) -> tuple[str, ...]:
    """Writes what is not in the journal yet; the names of the tenants that changed.

    Args:
        held: Tenants whose files cannot be read now; what the journal says of them stays.

    Raises:
        GatewayError: The journal cannot be read or written.
    """
    wanted = {name: tenant_line(tenant, models) for name, tenant in tenants.items()}
    changed: list[str] = []

    def changes(events: Iterator[Line]) -> Iterator[Line]:
        known = _last(events)
        left = sorted(name for name in known.keys() - wanted.keys() if name not in held)
        gone = {name: {"tenant": name, "gone": True} for name in left}
        for name, line in (wanted | gone).items():
            if known.get(name) != line:
                changed.append(name)
                yield line

    journal.amend(changes)
    return tuple(changed)


def tenant_lines(journal: Journal) -> list[Line]:
    """What the gateway was told last of each tenant that is there."""
    return [line for line in _last(journal.events()).values() if not line.get("gone")]


def issuers_of(lines: Iterable[Line], folder: Path) -> tuple[Issuer, ...]:
    """Each issuer once, with the audiences of all its tenants. A relative `file:` starts at `folder`."""
    audiences: dict[tuple[str, str], set[str]] = defaultdict(set)
    for jwt in (line["jwt"] for line in lines if line["jwt"]):
        audiences[jwt["issuer"], jwt["jwks"] or ""].add(jwt["audience"])
    return tuple(
        Issuer(name=name, audiences=tuple(sorted(found)), key_source=_absolute(source, folder))
        for (name, source), found in sorted(audiences.items())
    )


def _last(events: Iterable[Line]) -> dict[str, Line]:
    return {event["tenant"]: event for event in events}


def _absolute(source: str, folder: Path) -> str | None:
    if source.startswith("file:"):
        return f"file:{(folder / source.removeprefix('file:')).resolve()}"
    return source or None
