"""Which artifacts may go, and why each of the others stays. Pure: knows neither store nor registry.

What is needed keeps what it was made from: a model its adapter, the adapter its dataset and base model.
Cards are evidence and always stay. An artifact that nobody needs goes once it is both older than the
model's `retention.days` and not among its newest `retention.versions`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from llm_assets.manifests import Parents
from resources.artifact_store.artifacts import LABEL_TIME, Artifact, Line


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """What of a line is kept although nobody needs it: the newest `versions`, and all younger than `days`."""

    versions: int
    days: int


@dataclass(frozen=True, kw_only=True)
class Decision:
    """An artifact and why it stays; without a reason it may go."""

    artifact: Artifact
    reason: str | None


def decide(
    artifacts: Iterable[Artifact],
    *,
    needed: Mapping[str, str],
    keeping: Mapping[Line, Keeping],
    now: datetime,
) -> tuple[Decision, ...]:
    """A decision an artifact, in the order given.

    Args:
        needed: Reasons by artifact address: what an alias or a deployment points to.
        keeping: The rule of each line; a line without one (its model left the catalog) is kept whole.
    """
    every = tuple(artifacts)
    reasons = dict(needed)
    for artifact in every:
        if artifact.uri not in reasons and (reason := _own_reason(artifact, every, keeping, now)):
            reasons[artifact.uri] = reason
    by_uri = {artifact.uri: artifact for artifact in every}
    for uri in list(reasons):
        for parent in _ancestors(uri, by_uri):
            reasons.setdefault(parent, f"{uri} was made from it")
    return tuple(Decision(artifact=each, reason=reasons.get(each.uri)) for each in every)


def published_at(artifact: Artifact) -> datetime:
    """When it was published, from its label."""
    moment = artifact.version.partition("Z-")[0]
    return datetime.strptime(moment, LABEL_TIME).replace(tzinfo=UTC)


def _own_reason(
    artifact: Artifact, every: tuple[Artifact, ...], keeping: Mapping[Line, Keeping], now: datetime
) -> str | None:
    rule = keeping.get(artifact.line)
    if artifact.line.collection == "cards":
        return "cards are kept as evidence"
    if rule is None:
        return "its model or tenant is not in the catalog any more: nobody says how long it is kept"
    newer = [each for each in every if each.line == artifact.line and each.version > artifact.version]
    if len(newer) < rule.versions:
        return f"one of the newest {rule.versions} (retention.versions)"
    if now - published_at(artifact) < timedelta(days=rule.days):
        return f"younger than {rule.days} days (retention.days)"
    return None


def _ancestors(uri: str, by_uri: Mapping[str, Artifact]) -> Iterator[str]:
    artifact = by_uri.get(uri)
    if artifact is None or artifact.line.collection == "cards":
        return
    for parent in Parents.of(artifact).uris:
        yield parent
        yield from _ancestors(parent, by_uri)
