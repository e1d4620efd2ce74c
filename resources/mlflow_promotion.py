"""Moving `production`: a promotion or a rollback that either happened or did not, whenever it is cut off.

MLflow moves one alias at a time. So a move is first written down on the registered model (the `move`
tag, with the aliases as they were), then `previous` is set, then `production`: that one request *is*
the move. Whatever comes next first settles a move that was cut off: if `production` was reached, its
record is completed; if not, `previous` is put back and nothing has happened.

Every move stays on the registered model as a tag `history.<UTC time>`.

Does not cover: two people who move the same model within the same second (MLflow has no
compare-and-swap); whoever moves models from several machines at once has to take turns.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from mlflow import MlflowClient

CANDIDATE = "candidate"
PRODUCTION = "production"
PREVIOUS = "previous"

MOVE_TAG = "move"
HISTORY_TAG = "history."
AUTOMATIC_TAG = "automatic_promotion"  # on a version: may it still be promoted without a person?
DUE, DONE = "due", "done"

Action = Literal["promote", "rollback"]


@dataclass(frozen=True, kw_only=True)
class Move:
    """`production` goes from one version to another. Versions are MLflow's numbers."""

    action: Action
    to: int
    production: int | None  # before
    previous: int | None  # before
    who: str
    why: str
    at: str  # UTC, ISO 8601

    @property
    def history_tag(self) -> str:
        return HISTORY_TAG + self.at


def new_move(action: Action, to: int, aliases: Mapping[str, int], *, who: str, why: str) -> Move:
    return Move(
        action=action,
        to=to,
        production=aliases.get(PRODUCTION),
        previous=aliases.get(PREVIOUS),
        who=who,
        why=why,
        at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),  # a tag's name may hold no plus sign
    )


def carry_out(client: "MlflowClient", name: str, move: Move) -> None:
    """Moves `production`. Aliases must be settled; `move.production` must not be `move.to` already."""
    client.set_registered_model_tag(name, MOVE_TAG, json.dumps(asdict(move)))
    if move.production is not None:
        client.set_registered_model_alias(name, PREVIOUS, str(move.production))
    client.set_registered_model_alias(name, PRODUCTION, str(move.to))
    _record(client, name, move)


def settle(client: "MlflowClient", name: str) -> dict[str, int]:
    """The aliases, after a move that was cut off was completed or undone."""
    line = client.get_registered_model(name)
    aliases = {alias: int(number) for alias, number in line.aliases.items()}
    if MOVE_TAG not in line.tags:
        return aliases
    move = Move(**json.loads(line.tags[MOVE_TAG]))
    if aliases.get(PRODUCTION) == move.to:
        _record(client, name, move)
        return aliases
    _point(client, name, PREVIOUS, move.previous)
    client.delete_registered_model_tag(name, MOVE_TAG)
    restored = {alias: number for alias, number in aliases.items() if alias != PREVIOUS}
    return restored | ({} if move.previous is None else {PREVIOUS: move.previous})


def history(client: "MlflowClient", name: str) -> tuple[Move, ...]:
    """Every completed move of that model, oldest first."""
    tags = client.get_registered_model(name).tags
    return tuple(Move(**json.loads(tags[tag])) for tag in sorted(tags) if tag.startswith(HISTORY_TAG))


def _record(client: "MlflowClient", name: str, move: Move) -> None:
    client.set_registered_model_tag(name, move.history_tag, json.dumps(asdict(move)))
    tags = {AUTOMATIC_TAG: DONE, "promoted_by": move.who, "promoted_why": move.why, "promoted_at": move.at}
    for tag, value in tags.items():
        client.set_model_version_tag(name, str(move.to), tag, value)
    client.delete_registered_model_tag(name, MOVE_TAG)


def _point(client: "MlflowClient", name: str, alias: str, number: int | None) -> None:
    if number is None:
        client.delete_registered_model_alias(name, alias)
    else:
        client.set_registered_model_alias(name, alias, str(number))
