"""A route as the gateway's filter reads it: a line of `routes.jsonl`."""

from datetime import UTC, datetime
from typing import Any

from resources.seams.serving import Backend, Route

PRODUCTION = "production"
LABEL_TIME = "%Y%m%dT%H%M%S.%fZ"


def route_line(route: Route) -> dict[str, Any]:
    """Where a model's requests go, production first. A dead backend gets none of them."""
    backends = route.backends if len(route.dead) < len(route.backends) else ()
    return {
        "tenant": route.tenant,
        "model": route.model,
        "key": route.api_key if backends else None,
        "backends": [_backend(at, each) for at, each in enumerate(backends)],
    }


def _backend(at: int, backend: Backend) -> dict[str, Any]:
    names = [name for name in backend.aliases if name != PRODUCTION]
    line = {
        "deployment": backend.id,
        "version": backend.version,
        "digest": backend.digest,
        "weight": backend.weight,
        "names": [PRODUCTION, *names] if at == 0 else names,
        "created": int(_created(backend)),
    }
    return line | ({"dead": True} if backend.status == "dead" else {})


def _created(backend: Backend) -> float:
    """When the version was made, in epoch seconds, as its label says; else when it went live."""
    try:
        made = datetime.strptime(backend.version.partition("-")[0], LABEL_TIME)
    except ValueError:
        return backend.since
    return made.replace(tzinfo=UTC).timestamp()
