"""Moving `production`: a promotion or a rollback that either happened or did not, whenever it is cut off.

MLflow moves one alias at a time. So a move is first written down on the registered model (the `move`
tag, with the aliases as they were), then `previous` is set, then `production`: that one request *is*
the move. Whatever comes next first settles a move that was cut off: if `production` was reached, its
record is completed; if not, `previous` is put back and nothing has happened.

Every move stays on the registered model as a tag `history.<UTC time>`.

Who moves the same model at the same moment on the same machine takes turns (`turn`).

Does not cover: two machines at the same moment, because MLflow has no compare-and-swap. `production` is
then still one of the two versions, and both moves are in the history; but `previous` may be that of the
other, and a move whose record was not finished may be undone by the other's `settle`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from resources.mlflow.client import RegistryError

if TYPE_CHECKING:
    from mlflow import MlflowClient

CANDIDATE = "candidate"
PRODUCTION = "production"
PREVIOUS = "previous"

MOVE_TAG = "move"
HISTORY_TAG = "history."
AUTOMATIC_TAG = "automatic_promotion"  # on a version: may it still be promoted without a person?
DUE, DONE = "due", "done"

TURN_S = 900  # as long as another's check of a large version may take

Action = Literal["promote", "rollback"]


@dataclass(frozen=True, kw_only=True)
class Move:
    """`production` goes from one version to another. Versions are MLflow's numbers.

    `overridden` holds the rules that were broken and that a person overrode, each as a sentence.
    """

    action: Action
    to: int
    production: int | None  # before
    previous: int | None  # before
    who: str
    why: str
    at: str  # UTC, ISO 8601
    overridden: tuple[str, ...] = ()

    @property
    def history_tag(self) -> str:
        return HISTORY_TAG + self.at


def new_move(
    action: Action,
    to: int,
    aliases: Mapping[str, int],
    *,
    who: str,
    why: str,
    overridden: Sequence[str] = (),
) -> Move:
    return Move(
        action=action,
        to=to,
        production=aliases.get(PRODUCTION),
        previous=aliases.get(PREVIOUS),
        who=who,
        why=why,
        at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),  # a tag's name may hold no plus sign
        overridden=tuple(overridden),
    )


@contextmanager
def turn(locks: str, name: str) -> Iterator[None]:
    """Whoever moves `production` of that model on this machine does so alone; a killed holder frees it.

    Raises:
        RegistryError: Another has been at it for too long.
    """
    Path(locks).mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(Path(locks, f"{name}.promotion.lock"), timeout=TURN_S):
            yield
    except Timeout as error:
        raise RegistryError(
            f"Another process has been moving `production` of {name} for over {TURN_S // 60} minutes. "
            "Find it among the runs in the Dagster UI or with `ps`, end it, and try again."
        ) from error


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
    move = _move(line.tags[MOVE_TAG])
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
    return tuple(_move(tags[tag]) for tag in sorted(tags) if tag.startswith(HISTORY_TAG))


def _move(tag: str) -> Move:
    content: dict[str, Any] = json.loads(tag)
    return Move(**content | {"overridden": tuple(content.get("overridden", ()))})


def _record(client: "MlflowClient", name: str, move: Move) -> None:
    client.set_registered_model_tag(name, move.history_tag, json.dumps(asdict(move)))
    tags = {
        AUTOMATIC_TAG: DONE,
        "promoted_by": move.who,
        "promoted_why": move.why,
        "promoted_at": move.at,
        "promoted_overriding": "\n".join(move.overridden),
    }
    for tag, value in tags.items():
        client.set_model_version_tag(name, str(move.to), tag, value)
    client.delete_registered_model_tag(name, MOVE_TAG)


def _point(client: "MlflowClient", name: str, alias: str, number: int | None) -> None:
    if number is None:
        client.delete_registered_model_alias(name, alias)
    else:
        client.set_registered_model_alias(name, alias, str(number))
