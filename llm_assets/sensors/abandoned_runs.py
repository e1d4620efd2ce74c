"""Runs whose process was killed are ended: they would hold their tenant's line and the accelerator."""

import dagster as dg

from llm_assets.runs import end_abandoned_runs
from resources.seams.state import State

INTERVAL_S = 30


def abandoned_runs(status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """Dagster's monitoring sees neither the command line's runs nor its default launcher's workers."""

    @dg.sensor(name="abandoned_runs", minimum_interval_seconds=INTERVAL_S, default_status=status)
    def _sensor(context: dg.SensorEvaluationContext, state: dg.ResourceParam[State]) -> dg.SkipReason:
        """Marks runs as failed that nobody executes any more, on whatever machine."""
        ended = end_abandoned_runs(context.instance, state)
        return dg.SkipReason(f"Ended {len(ended)} abandoned runs: {', '.join(ended) or 'none'}")

    return _sensor
