"""How a step has a work order carried out: with a second try where that can help, and never for bad input."""

import dagster as dg

from resources.seams.compute import Compute, Outcome, WorkOrder, WorkOrderError

MOST_RETRIES = 1
RETRY_AFTER_S = 2


def carry_out(context: dg.AssetExecutionContext, compute: Compute, order: WorkOrder) -> Outcome:
    """The outcome. What was killed from outside is tried again by Dagster and goes on where it stopped.

    Raises:
        WorkOrderError: It failed by itself, or was killed at the last try too.
    """
    try:
        return compute.run(context, order)
    except WorkOrderError as error:
        if not error.retriable or context.retry_number >= MOST_RETRIES:
            raise
        context.log.warning(f"Tried again in {RETRY_AFTER_S} s: {error}")  # a terminal shows the first line
        raise dg.RetryRequested(max_retries=MOST_RETRIES, seconds_to_wait=RETRY_AFTER_S) from error
