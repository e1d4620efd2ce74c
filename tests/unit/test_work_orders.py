"""When a work order is tried again: after it was killed from outside, once, and never for bad input."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import dagster as dg
import pytest

from llm_assets.runs import QUIET
from llm_assets.work_orders import carry_out
from resources.artifact_store.artifacts import Line
from resources.engines.locks import EngineName, InstalledEngine
from resources.seams.compute import Outcome, RunContext, WorkOrder, WorkOrderError

ORDER = WorkOrder(engine="train", worker="train", inputs={}, params={})


@dataclass
class Failing:
    """A compute that fails as it is told, and then succeeds."""

    failures: Iterator[WorkOrderError]
    tries: int = field(default=0)

    def engine(self, name: EngineName) -> InstalledEngine:
        raise NotImplementedError

    def clear(self, line: Line) -> None:
        raise NotImplementedError

    def run(self, context: RunContext, order: WorkOrder) -> Outcome:
        self.tries += 1
        for failure in self.failures:
            raise failure
        return Outcome(result={"tries": self.tries})


def made(compute: Failing) -> object:
    @dg.asset
    def thing(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        return dg.MaterializeResult(metadata={"tries": carry_out(context, compute, ORDER).result["tries"]})

    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize([thing], instance=instance, run_config=QUIET)
    return done.asset_materializations_for_node("thing")[0].metadata["tries"].value


def killed() -> WorkOrderError:
    return WorkOrderError("the engine was killed", retriable=True)


def test_an_order_that_was_killed_is_tried_again_once() -> None:
    assert made(Failing(iter([killed()]))) == 2
    twice = Failing(iter([killed(), killed()]))
    with pytest.raises(WorkOrderError, match="the engine was killed"):
        made(twice)
    assert twice.tries == 2


def test_bad_input_is_not_tried_again() -> None:
    compute = Failing(iter([WorkOrderError("the row 7 is no text")]))
    with pytest.raises(WorkOrderError, match="the row 7 is no text"):
        made(compute)
    assert compute.tries == 1
