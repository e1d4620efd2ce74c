"""How the requests for a tenant's model are spread over its live versions.

A `Route` is all that a gateway needs to know. Weights are percent and add up to 100.
"""

import hashlib
import random
from dataclasses import dataclass
from typing import Literal

WHOLE = 100

ServerStatus = Literal["live", "dead", "stopped"]
Status = Literal["live", "degraded", "dead", "starting", "stopped", "absent", "unreadable"]


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One live version. `since` is in epoch seconds."""

    version: str
    digest: str
    weight: int
    since: float


@dataclass(frozen=True, kw_only=True)
class Route:
    """The backends of a tenant's model, production first."""

    tenant: str
    model: str
    backends: tuple[Backend, ...]

    @property
    def production(self) -> Backend:
        return self.backends[0]


@dataclass(frozen=True, kw_only=True)
class BackendState:
    """A version that should be live, as it is right now. `why` says, where it is not, what happened."""

    version: str
    digest: str
    weight: int
    status: ServerStatus
    since: float
    why: str | None = None


@dataclass(frozen=True, kw_only=True)
class DeploymentState:
    """A deployment as it is right now, production first. `why` names every server that is not live.

    `degraded` is a deployment of which some version does not answer while another does, `unreadable` one
    whose `deployment.json` is damaged: nobody knows what should be live.
    `version`, `digest` and `since` are production's.
    """

    tenant: str
    model: str
    status: Status
    version: str | None = None
    digest: str | None = None
    since: float | None = None
    why: str | None = None
    backends: tuple[BackendState, ...] = ()

    @property
    def faulty(self) -> bool:
        """Whether somebody has to look at it; `why` says at what."""
        return self.status in ("dead", "degraded", "unreadable")


def choose(backends: tuple[Backend, ...], key: str | None = None) -> Backend:
    """The backend of one request, by weight. Weights of backends that were left out go to the rest.

    Args:
        key: Requests of equal key (a user, a conversation) go to the same version while the weights stay.
            As the weight of the one version beside production grows, nobody goes back from it.
            None: a random choice.
    """
    point = _point(key) * sum(backend.weight for backend in backends)
    for backend in reversed(backends):  # production last: others only take from it
        point -= backend.weight
        if point < 0:
            return backend
    return backends[0]


def _point(key: str | None) -> float:
    """A place in [0, 1)."""
    if key is None:
        return random.random()  # noqa: S311  # spreads load, keeps no secret
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big") / 2**48
