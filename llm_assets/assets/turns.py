"""The turn that a step takes: it holds whoever launched the run, with whatever tags."""

from contextlib import AbstractContextManager

import dagster as dg

from resources.seams.state import State, Work


def step_turn(
    context: dg.AssetExecutionContext, state: State, tenant: str | None, model: str, work: Work = "build"
) -> AbstractContextManager[None]:
    """The turn of a tenant's model, or base model where `tenant` is None; the step says whom it waits for."""
    doing = f"run {context.run.run_id}: {'/'.join(context.asset_key.path)}"
    return state.turn(tenant, model, work, doing=doing, say=context.log.info)
