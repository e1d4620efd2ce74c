"""Moving `production`: a promotion or a rollback that either happened or did not, whenever it is cut off.

A move is one entry of the signed log (`resources/mlflow/move_log.py`). What MLflow shows follows
(`resources/mlflow/shown.py`), and where that was cut off, whoever comes next finishes it.

Who moves the same model at the same moment takes turns (`State.turn`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from resources.mlflow.move_log import HISTORY_TAG, PREVIOUS, PRODUCTION, Line, time_after

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
        at=time_after(line.last),
        overridden=tuple(overridden),
    )


def history(line: Line) -> tuple[Move, ...]:
    """Every move of that line, oldest first."""
    return tuple(
        Move(**{**value, "overridden": tuple(value.get("overridden", ()))})
        for _, value in line.of(HISTORY_TAG)
    )


def as_of_today(move: Move, line: Line) -> Move:
    """With the numbers that its versions have now."""
    numbers = {
        name: None if number is None else line.now(number, move.at)
        for name, number in (("to", move.to), ("production", move.production), ("previous", move.previous))
    }
    return replace(move, **numbers)  # type: ignore[arg-type]  # `to` is never None
