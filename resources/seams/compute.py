"""The compute seam: one piece of an engine's work, with artifacts in and artifacts out.

A step makes a `WorkOrder` and hands it to `Compute.run`; it names no folder, no process and no machine.
Whoever runs the order does all of this, in this order:

1. Refuses at once what cannot be run: too little disk for `needs.disk_bytes`, an engine that is not there.
2. Stages the inputs: a folder for each, with the files of its manifest and no other, verified.
3. Starts `python -m llm_assets.workers.<worker>` in the engine's environment with `worker_order` through
   Dagster Pipes, and hands what the worker reports on to the run as it comes.
4. Sends the files of the output folder into the store, hashed in the one read: those that the worker reports
   as whole (`{"file": …}`) while it goes on, the rest once it has ended.
5. Gives the result and an `Artifact` without attributes: its files lie in the store at their place, but there
   is no manifest, so nobody sees a version yet. The step signs and writes that (`ArtifactStore.finish`).

What an interrupted try left in its folder (output and scratch) is there for the next one of the same line,
fingerprint and engine, until `clear` is called for the line.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import dagster as dg

from resources.artifact_store.artifacts import Artifact, ArtifactFile, Line, fingerprint_of
from resources.engines.locks import EngineName, InstalledEngine
from resources.errors import LlmAssetsError

RunContext = dg.OpExecutionContext | dg.AssetExecutionContext


class WorkOrderError(LlmAssetsError):
    """A work order ended without its result.

    Attributes:
        retriable: It was ended from outside (the engine killed, the node lost): the same order may succeed.
    """

    def __init__(self, message: str, *, retriable: bool = False) -> None:
        super().__init__(message)
        self.retriable = retriable


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What an order takes of the node that it runs on.

    Attributes:
        gpus: Accelerators on each node; the step's pool or queue counts them.
        memory_bytes: Of all its processes together; 0: as much as the installation lets an order take.
        disk_bytes: For scratch and output together, beside the inputs.
    """

    gpus: int = 0
    nodes: int = 1
    memory_bytes: int = 0
    disk_bytes: int = 0

    def __post_init__(self) -> None:
        if self.nodes < 1 or min(asdict(self).values()) < 0:
            raise WorkOrderError(f"A work order cannot need {self}: it takes at least one node.")


@dataclass(frozen=True, kw_only=True)
class Output:
    """The version to be made. `parents` may hold some of the same files, which are then not sent again."""

    line: Line
    fingerprint: str
    parents: tuple[Artifact, ...] = ()


@dataclass(frozen=True, kw_only=True)
class WorkOrder:
    """One piece of an engine's work.

    Attributes:
        worker: A module of `llm_assets.workers`.
        params: Plain JSON.
        output: None: the result is all that it makes.
        compares_inputs: The worker compares what it reads with the SHA-256 of `input_files` by itself, so
            inputs that lie on the node's disk need not be read before.
    """

    engine: EngineName
    worker: str
    inputs: Mapping[str, Artifact]
    params: Mapping[str, Any]
    output: Output | None = None
    needs: Needs = field(default_factory=Needs)
    compares_inputs: bool = False

    def attempt(self, engine: InstalledEngine) -> str:
        """16 hex digits, equal for tries that may go on from each other's scratch."""
        made = self.output.fingerprint if self.output else None
        return fingerprint_of(made=made, engine=engine.lock_digest).removeprefix("sha256:")[:16]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a worker gave back, and what was sent: a version without a manifest, where one was asked for."""

    result: Mapping[str, Any]
    sent: Artifact | None = None

    @property
    def draft(self) -> Artifact:
        """What the step makes a version of.

        Raises:
            WorkOrderError: None was asked for.
        """
        if self.sent is None:
            raise WorkOrderError("The work order had no output, so there is no version to finish.")
        return self.sent

    @property
    def files(self) -> tuple[ArtifactFile, ...]:
        return self.draft.files


class Compute(Protocol):
    """Runs work orders."""

    def engine(self, name: EngineName) -> InstalledEngine:
        """What would run the orders of an engine. Raises EngineError when it is not there."""

    def run(self, context: RunContext, order: WorkOrder) -> Outcome:
        """Runs the order to its end; none of it outlives the step that asked.

        Raises:
            DiskError: The node has too little free space.
            ArtifactError, ObjectStoreError: An input is damaged, or the store cannot give or take files.
            WorkOrderError: The engine failed, was killed, went beyond a limit, or sent no result; names the
                cause and the log.
        """

    def clear(self, line: Line) -> None:
        """Removes what tries of this line left: its version is made. What is gone already is fine."""
