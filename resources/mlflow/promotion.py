"""Moving `production`: a promotion or a rollback that either happened or did not, whenever it is cut off.

A move is written down on the registered model first (the `move` tag), then sealed in the signed log
(`resources/mlflow/move_log.py`): that one record *is* the move. What MLflow shows follows: `previous`, then
`production`, then the move's tag `history.<UTC time>`. Whatever comes next first settles a move that was cut
off: if the log has it, MLflow is brought to what it says; if not, nothing has happened. Aliases and tags that
somebody else changed are left as they are, so that they can be seen; the log decides.

Who moves the same model at the same moment on the same machine takes turns (`turn`).

Does not cover: two machines at the same moment, each with a log of its own.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from resources.mlflow.client import RegistryError
from resources.mlflow.move_log import (
    CANDIDATE,
    HISTORY_TAG,
    MOVE_TAG,
    PREVIOUS,
    PRODUCTION,
    Line,
    MoveLog,
    time_after,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["CANDIDATE", "PREVIOUS", "PRODUCTION", "Move"]

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
    line: Line,
    *,
    who: str,
    why: str,
    overridden: Sequence[str] = (),
) -> Move:
    return Move(
        action=action,
        to=to,
        production=line.aliases.get(PRODUCTION),
        previous=line.aliases.get(PREVIOUS),
        who=who,
        why=why,
        at=time_after(max((move.at for move in history(line)), default="")),
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


def carry_out(client: "MlflowClient", log: MoveLog, name: str, move: Move) -> None:
    """Moves `production`. The line must be settled; `move.production` must not be `move.to` already."""
    client.set_registered_model_tag(name, MOVE_TAG, json.dumps(asdict(move)))
    log.record(name, move.history_tag, asdict(move))
    show(client, name, move)


def settle(client: "MlflowClient", log: MoveLog, name: str) -> Line:
    """The line as the log has it, after a move that was cut off was shown or forgotten."""
    known = client.get_registered_model(name)
    line = log.line(known)
    if MOVE_TAG not in known.tags:
        return line
    cut_off = _move(known.tags[MOVE_TAG])
    if cut_off.history_tag in line.logged:
        show(client, name, history(line)[-1])
    else:
        client.delete_registered_model_tag(name, MOVE_TAG)
    return line


def history(line: Line) -> tuple[Move, ...]:
    """Every move of that line, oldest first."""
    return tuple(_move(line.tags[tag]) for tag in sorted(line.tags) if tag.startswith(HISTORY_TAG))


def show(client: "MlflowClient", name: str, move: Move) -> None:
    """Brings MLflow's aliases and tags to what a move of the log says."""
    if move.production is not None:
        client.set_registered_model_alias(name, PREVIOUS, str(move.production))
    client.set_registered_model_alias(name, PRODUCTION, str(move.to))
    _record(client, name, move)


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
