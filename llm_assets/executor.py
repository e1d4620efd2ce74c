"""Runs execute their steps in one process, which says through the state that they are alive."""

from collections.abc import Iterator

import dagster as dg
from dagster._core.execution.context.system import (
    PlanOrchestrationContext,  # for the overridden method's types
)
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.executor.in_process import InProcessExecutor  # which `dg.in_process_executor` makes

from resources.seams.state import State


def executor_of(state: State) -> dg.ExecutorDefinition:
    """Dagster's in-process executor for every run that is launched, from the UI and by a backfill too."""

    class WatchedExecutor(InProcessExecutor):
        def execute(
            self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
        ) -> Iterator[dg.DagsterEvent]:
            with state.executing(plan_context.run_id):
                yield from super().execute(plan_context, execution_plan)

    make_plain = dg.in_process_executor.executor_creation_fn
    assert make_plain is not None

    def make(context: dg.InitExecutorContext) -> WatchedExecutor:
        return WatchedExecutor(retries=make_plain(context).retries)

    return dg.ExecutorDefinition(
        name="in_process",
        config_schema=dg.in_process_executor.config_schema,  # type: ignore[arg-type]  # it takes its own kind too
        executor_creation_fn=make,
    )
