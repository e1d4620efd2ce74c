"""The serving seam: versions of a tenant's model as they are to be served, and what is live of them.

A step makes a `Serving` of each version that is to be live and hands them to `ModelServing.deploy`. They hold
addresses of artifacts, digests and needs; no folder, port or lease of a machine, so the same version has the
same fingerprint wherever it is served. What comes back is a `Route`, which the gateway is told
(`resources/seams/gateway.py`).

Whoever deploys or stops holds the exclusive turn of that tenant and model.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from resources.errors import LlmAssetsError
from resources.names import MODEL, TENANT, VERSION

WHOLE = 100
"""All requests of a model, in percent."""

BackendStatus = Literal["live", "dead", "stopped"]
Status = Literal["live", "degraded", "dead", "starting", "stopped", "absent", "unreadable"]
Device = Literal["cpu", "cuda"]
Log = Callable[[str], Any]


class ServingError(LlmAssetsError):
    """A model is not served as it was asked for."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """One version of a tenant's model as it is to be served; the same on a laptop and a cluster.

    Attributes:
        version: The label of the version; served names carry it.
        digest: The digest of the version; every response carries it as `system_fingerprint`.
        model_uri: The artifact with the weights: the merged model, or in mode `adapter` the base model.
        adapter_uri: In mode `adapter` the adapter, which holds the chat template too.
        lora_rank: The adapter's rank.
        weights: Whether they are staged on the disk of the node that serves, or streamed past it.
        tool_call_parser: vLLM's name of how this model writes tool calls; None where it takes no tools.
        known_answers: Questions with what the merged model answered offline (`resources/vllm/answers.py`).
        engine: The digest of the serve engine's lock: another vLLM is another server.
        device: What it needs to run on.
        weight: Its share of the model's requests in percent.
        aliases: The names that the registry gives it, by which it can be asked at the gateway.

    Raises:
        ServingError: The values do not fit together.
    """

    tenant: str
    model: str
    version: str
    digest: str
    mode: Literal["merged", "adapter"]
    model_uri: str
    model_digest: str
    adapter_uri: str | None = None
    adapter_digest: str | None = None
    lora_rank: int | None = None
    weights: Literal["disk", "stream"] = "disk"
    max_model_len: int
    max_num_seqs: int
    kv_cache_mib: int
    dtype: str
    tool_call_parser: str | None = None
    known_answers: tuple[dict[str, Any], ...]
    engine: str
    device: Device
    weight: int = WHOLE
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if problem := next(_problems(self), None):
            raise ServingError(
                f"{self.tenant}/{self.model} version {self.version} cannot be served: {problem}"
            )

    @property
    def name(self) -> str:
        return f"{self.tenant}/{self.model}"

    @property
    def served_names(self) -> tuple[str, str]:
        """The name that pins this version, and the one that always means the live version."""
        return f"{self.model}@{self.version}", self.model

    @property
    def fingerprint(self) -> str:
        """Changes with what a running server would have to be replaced for, and with nothing else."""
        values = {name: value for name, value in vars(self).items() if name not in _OF_NO_SERVER}
        text = json.dumps(values, sort_keys=True)
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


_OF_NO_SERVER = ("known_answers", "weight", "aliases")


def _problems(serving: Serving) -> Iterator[str]:
    if not TENANT.fullmatch(serving.tenant):
        yield f"the tenant name {serving.tenant!r} is not a DNS label"
    if not MODEL.fullmatch(serving.model):
        yield f"the model name {serving.model!r} is not made of a-z, 0-9 and _"
    if not VERSION.fullmatch(serving.version):
        yield f"the version {serving.version!r} is not made of up to 127 letters, digits, '.', '_' and '-'"
    adapter = (serving.adapter_uri, serving.adapter_digest, serving.lora_rank)
    if None in adapter if serving.mode == "adapter" else adapter != (None, None, None):
        yield "mode adapter needs the adapter, its digest and its rank, mode merged none of them"
    if not serving.known_answers or not all(known["tokens"] for known in serving.known_answers):
        yield "it has no known answer (or an empty one) that could tell whether the right model answers"


def check_servings(servings: tuple[Serving, ...]) -> None:
    """Raises:
    ServingError: They are not versions of one tenant's model whose weights make up all requests.
    """
    weights = [each.weight for each in servings]
    names, versions = {each.name for each in servings}, {each.version for each in servings}
    if sum(weights) != WHOLE or min(weights) < 1 or len(names) != 1 or len(versions) != len(servings):
        listed = ", ".join(f"{each.name} {each.version}: {each.weight} %" for each in servings)
        raise ServingError(
            f"{listed} cannot be live together: different versions of one tenant's model can, with "
            f"weights from 1 that add up to {WHOLE}."
        )


@dataclass(frozen=True, kw_only=True)
class Backend:
    """What serves one version.

    Attributes:
        id: Like no other's; a gateway chooses it by that, and records name it.
        fingerprint: Of the `Serving` that it was started for.
        address: Where the installation's gateway reaches it: `unix:` and a path below the state folder, or
            `host:port`.
        weight: Its share of the model's requests in percent.
        since: When it went live, in epoch seconds.
        why: Where it is not live although it should be, what happened.
    """

    id: str
    version: str
    digest: str
    fingerprint: str
    address: str
    weight: int
    aliases: tuple[str, ...] = ()
    since: float
    status: BackendStatus = "live"
    why: str | None = None


@dataclass(frozen=True, kw_only=True)
class Route:
    """Where the requests for a tenant's model go: all that a gateway needs to know.

    Attributes:
        backends: Production first. A dead one gets no requests; that it is there says that it will be back.
            None at all: nothing is live.
        api_key: What the backends ask for.
    """

    tenant: str
    model: str
    backends: tuple[Backend, ...] = ()
    api_key: str = field(default="", repr=False)

    @property
    def production(self) -> Backend:
        return self.backends[0]

    @property
    def dead(self) -> tuple[Backend, ...]:
        return tuple(backend for backend in self.backends if backend.status == "dead")

    @property
    def why(self) -> str:
        """What happened to each dead backend."""
        return " ".join(backend.why or "" for backend in self.dead)


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What should be live of a tenant's model, as it is.

    `degraded` is one of which some version does not answer while another does, `unreadable` one of which
    nobody knows what should be live.

    Attributes:
        backends: Production first.
        starting: The version that is being started while nothing is live.
        why: Names every backend that is not live.
    """

    tenant: str
    model: str
    status: Status
    backends: tuple[Backend, ...] = ()
    starting: str | None = None
    why: str | None = None

    @property
    def production(self) -> Backend | None:
        return self.backends[0] if self.backends else None

    @property
    def version(self) -> str | None:
        return self.production.version if self.production else self.starting

    @property
    def faulty(self) -> bool:
        """Whether somebody has to look at it; `why` says at what."""
        return self.status in ("dead", "degraded", "unreadable")


class ModelServing(Protocol):
    """Serves models: of each tenant and model one version, or several side by side."""

    @property
    def device(self) -> Device:
        """What its servers run on."""

    def deploy(self, servings: tuple[Serving, ...], *, publish: Callable[[Route], object], log: Log) -> Route:
        """Makes these versions live, or finds that they are, and ends what else is live of the model.

        A new backend has answered the known questions as the merged model did offline before it is in a
        route. Each route is handed to `publish`, and only when that has returned does what it no longer names
        end. Production comes first; a version beside it that fails leaves production its share, and is raised
        at the end. Ended at any moment it leaves the old backends live or new ones, and another deploy
        finishes the work.

        Args:
            servings: Production first; their weights add up to `WHOLE`.

        Raises:
            ServingError: One did not start or answers differently than the merged model did. It is ended, and
                the text says what goes on serving.
        """

    def stop(self, tenant: str, model: str) -> None:
        """Ends everything of a model, what is being started too. What is stopped already is fine.

        No gateway may send it requests any more.
        """

    def route(self, tenant: str, model: str) -> Route:
        """What should be live, and which of it is dead; no backend where nothing should. Nobody is asked."""

    def routes(self) -> Iterable[Route]:
        """The route of every model that this installation ever served, of what was stopped too."""

    def state(self, tenant: str, model: str) -> Deployment:
        """How a deployment is right now; its backends are asked."""

    def states(self) -> tuple[Deployment, ...]:
        """As `state`, of every model that this installation ever served."""

    def watching(self, log: Log) -> AbstractContextManager[Callable[[], None]]:
        """While it is open: a function that ends the backends that hang, to be called every few seconds."""
