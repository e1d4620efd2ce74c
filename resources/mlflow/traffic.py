"""Which versions of a model share its requests: production, and others beside it for a while.

A change of the traffic is one entry `traffic.<UTC time>` of the signed log, which MLflow then shows: it
happened or it did not, whenever it is cut off. The newest one is what holds;
together they are the history. A change holds under the promotion that it was made under: as soon as
`production` moves, to whichever version, production has all requests again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from resources.mlflow import promotion
from resources.mlflow.client import RegistryError
from resources.mlflow.move_log import PRODUCTION, TRAFFIC_TAG, Line, time_after
from resources.mlflow.registry import Check, MlflowRegistry, registered, unchecked
from resources.mlflow.versions import RegisteredVersion
from resources.seams.serving import WHOLE


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
        self._registry = registry

    def shares(self, tenant: str, model: str) -> tuple[TrafficShare, ...]:
        """The versions that are to be live with their weights, production first; none before a promotion."""
        line = self._registry.line(tenant, model)
        return _shares(line) if PRODUCTION in line.pointed else ()

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
        doing = f"changing the traffic of {model} of {tenant}"
        with self._registry.settled(tenant, model, doing) as (client, line):
            if PRODUCTION not in line.pointed:
                raise RegistryError(
                    f"No version of {model} of {tenant} is in production, so there is no traffic to share. "
                    f"`llm-assets promote {model} --tenant {tenant}` promotes the candidate."
                )
            every = self._registry.versions(tenant, model)
            numbers = _numbers(every, weights, f"{model} of {tenant}")
            known = {str(share.version.number): share.weight for share in _shares(line)[1:]}
            if numbers != known:
                new = [version for version in every if str(version.number) in numbers.keys() - known.keys()]
                overridden = tuple(rule for version in new for rule in check(version))
                change = _new_change(line, numbers, who=who, why=why, overridden=overridden)
                log = self._registry.move_log
                with log.showing(line.name):
                    log.record(line.name, TRAFFIC_TAG + change.at, asdict(change))  # now it holds
                    line = self._registry.show_change(client, line)
            return _shares(line)

    def history(self, tenant: str, model: str) -> tuple[TrafficChange, ...]:
        """Every change of the traffic, oldest first, in numbers of today; ended ones as well."""
        line = self._registry.line(tenant, model)
        return tuple(_as_of_today(change, line) for change in _changes(line))


def _shares(line: Line) -> tuple[TrafficShare, ...]:
    change = _holding(line)
    beside = (
        {line.label(number, change.at): each for number, each in change.weights.items()} if change else {}
    )
    weights = {line.pointed[PRODUCTION]: WHOLE - sum(beside.values())} | beside
    return tuple(
        TrafficShare(version=registered(line, label), weight=weight) for label, weight in weights.items()
    )


def _holding(line: Line) -> TrafficChange | None:
    """The newest change, unless production has moved since."""
    last = next(reversed(_changes(line)), None)
    if last is None or last.promotion != _promotion_of(line):
        return None
    return last if line.label(last.production, last.at) == line.pointed[PRODUCTION] else None


def _changes(line: Line) -> list[TrafficChange]:
    return [
        TrafficChange(**{**value, "overridden": tuple(value["overridden"])})
        for _, value in line.of(TRAFFIC_TAG)
    ]


def _as_of_today(change: TrafficChange, line: Line) -> TrafficChange:
    weights = {str(line.now(number, change.at)): weight for number, weight in change.weights.items()}
    return replace(change, weights=weights, production=line.now(change.production, change.at))


def _promotion_of(line: Line) -> str:
    """When production last moved."""
    moves = promotion.history(line)
    return moves[-1].at if moves else ""


def _new_change(
    line: Line, weights: Mapping[str, int], *, who: str, why: str, overridden: tuple[str, ...]
) -> TrafficChange:
    return TrafficChange(
        weights=weights,
        production=line.aliases[PRODUCTION],
        promotion=_promotion_of(line),
        who=who,
        why=why,
        at=time_after(line.last),
        overridden=overridden,
    )


def _numbers(every: Sequence[RegisteredVersion], weights: Mapping[str, int], whose: str) -> dict[str, int]:
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


def _find(every: Sequence[RegisteredVersion], name: str, whose: str) -> RegisteredVersion:
    for version in every:
        if name in (str(version.number), version.label, *version.aliases):
            return version
    listed = ", ".join(f"{known.number} ({known.label})" for known in every[:5]) or "none"
    raise RegistryError(f"{whose} has no version {name}. The newest registered ones: {listed}.")
