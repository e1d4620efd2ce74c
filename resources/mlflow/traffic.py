"""Which versions of a model share its requests: production, and others beside it for a while.

A change of the traffic is one record `traffic.<UTC time>` of the signed log, and then a tag of that name on
the registered model: it happened or it did not, whenever it is cut off. The newest one is what holds;
together they are the history. A change holds under the promotion that it was made under: as soon as
`production` moves, to whichever version, production has all requests again.

Does not cover: two machines that change the traffic of one model at the same moment; the later one holds.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from resources.mlflow import promotion
from resources.mlflow.client import RegistryError
from resources.mlflow.move_log import HISTORY_TAG, PRODUCTION, TRAFFIC_TAG, MoveLog, time_after
from resources.mlflow.registry import Check, MlflowRegistry, unchecked
from resources.mlflow.versions import (
    RegisteredVersion,
    find_model,
    find_versions,
    get_version,
    registered_name,
)
from resources.serving.routes import WHOLE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel


@dataclass(frozen=True, kw_only=True)
class TrafficShare:
    """A version and its weight: its share of the model's requests in percent."""

    version: RegisteredVersion
    weight: int


@dataclass(frozen=True, kw_only=True)
class TrafficChange:
    """Who gave which versions which weights, and why. Versions are MLflow's numbers.

    Attributes:
        weights: Of the versions beside production; empty where production has all requests again.
        production: What was in production then.
        promotion: When it had been promoted; the change holds until the next promotion or rollback.
        overridden: The rules of a promotion that a version broke and a person overrode, each as a sentence.
    """

    weights: Mapping[str, int]
    production: int
    promotion: str
    who: str
    why: str
    at: str  # UTC, ISO 8601
    overridden: tuple[str, ...]


class MlflowTraffic:
    """The traffic of the models of a registry."""

    def __init__(self, registry: MlflowRegistry) -> None:
        self._registry, self._locks, self._log = registry, registry.locks, registry.move_log

    def shares(self, tenant: str, model: str) -> tuple[TrafficShare, ...]:
        """The versions that are to be live with their weights, production first; none before a promotion."""
        with self._registry.client(f"reading the traffic of {model} of {tenant}") as client:
            line = find_model(client, registered_name(tenant, model))
            if line is None or PRODUCTION not in line.aliases:
                return ()
            return _shares(client, tenant, model, line)

    def change(
        self,
        tenant: str,
        model: str,
        weights: Mapping[str, int],
        *,
        who: str,
        why: str,
        check: Check = unchecked,
    ) -> tuple[TrafficShare, ...]:
        """Gives versions beside production their weights; production keeps the rest.

        Weights that hold already stay as they are, with the record of who gave them.

        Args:
            weights: By label, number or alias of the version. Empty: production has all requests.
            check: Asked of each version that has no share yet; raises if it may have none.

        Raises:
            RegistryError: Nothing is in production, a version is unknown or is production, or the weights
                leave nothing for production.
        """
        with (
            promotion.turn(self._locks, registered_name(tenant, model)),
            self._registry.client(f"changing the traffic of {model} of {tenant}") as client,
        ):
            line = _promoted_line(client, self._log, tenant, model)
            every = find_versions(client, tenant, model)
            numbers = _numbers(every, weights, f"{model} of {tenant}")
            now = _holding(line)
            known = dict(now.weights) if now else {}
            if numbers != known:
                new = [version for version in every if str(version.number) in numbers.keys() - known.keys()]
                overridden = tuple(rule for version in new for rule in check(version))
                change = _new_change(line, numbers, who=who, why=why, overridden=overridden)
                self._log.record(line.name, TRAFFIC_TAG + change.at, asdict(change))  # now it holds
                text = json.dumps(asdict(change))
                client.set_registered_model_tag(line.name, TRAFFIC_TAG + change.at, text)
                line = client.get_registered_model(line.name)
            return _shares(client, tenant, model, line)

    def history(self, tenant: str, model: str) -> tuple[TrafficChange, ...]:
        """Every change of the traffic, oldest first; those too that a promotion has ended."""
        with self._registry.client(f"reading the traffic of {model} of {tenant}") as client:
            line = find_model(client, registered_name(tenant, model))
            return tuple(_changes(line)) if line else ()


def _promoted_line(client: "MlflowClient", log: MoveLog, tenant: str, model: str) -> "RegisteredModel":
    """The registered model with every move of `production` settled."""
    name = registered_name(tenant, model)
    if find_model(client, name) is None or PRODUCTION not in promotion.settle(client, log, name).aliases:
        raise RegistryError(
            f"No version of {model} of {tenant} is in production, so there is no traffic to share. "
            f"`llm-assets promote {model} --tenant {tenant}` promotes the candidate."
        )
    return client.get_registered_model(name)


def _shares(
    client: "MlflowClient", tenant: str, model: str, line: "RegisteredModel"
) -> tuple[TrafficShare, ...]:
    change = _holding(line)
    weights = dict(change.weights) if change else {}
    weights = {str(line.aliases[PRODUCTION]): WHOLE - sum(weights.values())} | weights
    return tuple(
        TrafficShare(version=get_version(client, tenant, model, int(number)), weight=weight)
        for number, weight in weights.items()
    )


def _holding(line: "RegisteredModel") -> TrafficChange | None:
    """The newest change, unless production has moved since."""
    last = next(reversed(_changes(line)), None)
    same = last and (last.production, last.promotion) == (int(line.aliases[PRODUCTION]), _promotion_of(line))
    return last if same else None


def _changes(line: "RegisteredModel") -> list[TrafficChange]:
    return [
        TrafficChange(**value | {"overridden": tuple(value["overridden"])})
        for value in _tagged(line, TRAFFIC_TAG)
    ]


def _promotion_of(line: "RegisteredModel") -> str:
    """When production last moved. "" where it was set by hand: such a move has no record."""
    moves = _tagged(line, HISTORY_TAG)
    return str(moves[-1]["at"]) if moves else ""


def _tagged(line: "RegisteredModel", prefix: str) -> list[dict[str, Any]]:
    """The values of the tags that begin so, oldest first."""
    return [json.loads(line.tags[tag]) for tag in sorted(line.tags) if tag.startswith(prefix)]


def _new_change(
    line: "RegisteredModel", weights: Mapping[str, int], *, who: str, why: str, overridden: tuple[str, ...]
) -> TrafficChange:
    earlier = _changes(line)
    return TrafficChange(
        weights=weights,
        production=int(line.aliases[PRODUCTION]),
        promotion=_promotion_of(line),
        who=who,
        why=why,
        at=time_after(earlier[-1].at if earlier else ""),
        overridden=overridden,
    )


def _numbers(every: list[RegisteredVersion], weights: Mapping[str, int], whose: str) -> dict[str, int]:
    """The weights by the versions' numbers."""
    numbers: dict[str, int] = {}
    for name, weight in weights.items():
        version = _find(every, name, whose)
        if PRODUCTION in version.aliases:
            raise RegistryError(
                f"Version {name} of {whose} is in production already and keeps what the others leave it. "
                "Name another version."
            )
        if weight < 1 or str(version.number) in numbers:
            raise RegistryError(f"Version {name} of {whose} needs one weight, from 1 to {WHOLE - 1} percent.")
        numbers[str(version.number)] = weight
    if sum(numbers.values()) >= WHOLE:
        raise RegistryError(
            f"The weights of {whose} leave production nothing: they have to add up to less than {WHOLE}. "
            "To serve another version alone, promote it."
        )
    return numbers


def _find(every: list[RegisteredVersion], name: str, whose: str) -> RegisteredVersion:
    for version in every:
        if name in (str(version.number), version.label, *version.aliases):
            return version
    listed = ", ".join(f"{known.number} ({known.label})" for known in every[:5]) or "none"
    raise RegistryError(f"{whose} has no version {name}. The newest registered ones: {listed}.")
