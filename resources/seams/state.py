"""The state seam: whose turn it is, which runs are alive, and files that all machines have alike.

Nothing here is decided by a pid or by the clock of one machine: whoever holds a turn or executes a run
holds a lock that goes when its process ends, however it ends.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from resources.errors import LlmAssetsError

Say = Callable[[str], None]
Work = Literal["build", "deploy", "move"]
"""What a turn is for. Versions are made (`build`, hours), what is live is changed (`deploy`, minutes),
`production` moves (`move`, moments). A rollback must not wait for a training, nor a look at the history for
a deploy."""
WAIT_S: Mapping[Work, float] = {"build": 14 * 86400, "deploy": 4 * 3600, "move": 900}
"""How long a turn is waited for: as long as the work of somebody else may take."""


class StateError(LlmAssetsError):
    """The state cannot be read or written, or what was held is held no more."""


class TurnTakenError(StateError):
    """Somebody else has the turn, and kept it for as long as was waited."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who has a turn: what it does, on which machine, since when (UTC, ISO 8601)."""

    doing: str
    machine: str
    since: str

    def __str__(self) -> str:
        return f"{self.doing}, on {self.machine} since {self.since}"


class State(Protocol):
    """What machines that work for the same tenants have to agree on."""

    def turn(
        self,
        tenant: str | None,
        model: str,
        work: Work,
        *,
        doing: str,
        say: Say,
        timeout_s: float | None = None,
    ) -> AbstractContextManager[None]:
        """The one turn for that work on that model of that tenant. A thread that has it already has it again.

        Args:
            tenant: None for what all tenants share; `model` is a base model then.
            doing: What the holder does, for those who wait.
            say: Is told once who has the turn, where it has to be waited for.
            timeout_s: How long to wait, `WAIT_S` if left out; 0 to take it only if it is free.

        Raises:
            TurnTakenError: It was not free in that time; names who has it.
            StateError: At the end: the turn was lost meanwhile.
        """

    def shared(self, folder: Path, name: str) -> AbstractContextManager[None]:
        """Brings a folder of a few small files to what every machine has under that name.

        Nobody else changes it meanwhile. What the block changed every machine has afterwards, or none has.

        Raises:
            StateError: The folder has files that never were the others'.
        """

    def shared_names(self) -> list[str]:
        """Every name that `shared` was given, on whatever machine."""

    def executing(self, run_id: str) -> AbstractContextManager[None]:
        """Says that a run is alive, for as long as this process executes it."""

    def abandoned(self, run_ids: Iterable[str]) -> list[str]:
        """Those of the runs that were executed once and that nobody executes any more."""
