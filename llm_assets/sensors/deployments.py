"""The state of every deployment, looked at every minute: a server that died is seen and named.

A tick looks and writes observations by itself; it starts no run, which would cost more than what it looks at.
So it is a sensor without a job: a schedule's target is one job, and no job holds assets of two models, whose
partitions differ.
"""

from datetime import UTC, datetime

import dagster as dg

from llm_assets.catalog.models import ModelEntry
from llm_assets.keys import VLLM_DEPLOYMENT, model_key
from llm_assets.presentation import backends_table
from resources.seams.serving import Deployment, ModelServing

INTERVAL_S = 60


def deployments(models: tuple[ModelEntry, ...], status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """Observes every deployment of the models and writes what it saw onto the asset's partition."""
    served = {model.name for model in models if model.serving.mode != "none"}
    observed = dg.AssetSelection.assets(*(model_key(name, VLLM_DEPLOYMENT) for name in sorted(served)))

    @dg.sensor(
        name="deployments",
        asset_selection=observed,
        minimum_interval_seconds=INTERVAL_S,
        default_status=status,
    )
    def _sensor(
        context: dg.SensorEvaluationContext, serving: dg.ResourceParam[ModelServing]
    ) -> dg.SkipReason:
        """Writes the state of every deployment (live or dead, each version's weight) onto its asset."""
        states = [state for state in serving.states() if state.model in served]
        if not states:
            return dg.SkipReason(f"Nothing is deployed of {len(served)} models.")
        for state in states:
            if state.faulty:
                context.log.error(state.why)
            context.instance.report_runless_asset_event(observation(state))
        live = sum(state.status == "live" for state in states)
        return dg.SkipReason(f"Observed {len(states)} deployments, {live} live; no run is needed for that.")

    return _sensor


def observation(state: Deployment) -> dg.AssetObservation:
    """What is seen of a deployment now, as an event of its asset's partition."""
    facts: dict[str, dg.MetadataValue] = {
        "llm/state": dg.MetadataValue.text(state.status),
        "llm/observed_at": dg.MetadataValue.timestamp(datetime.now(UTC)),
    }
    production = state.production
    digest = production.digest if production else None
    for name, value in (("digest", digest), ("version", state.version), ("why", state.why)):
        if value:
            facts[f"llm/{name}"] = dg.MetadataValue.text(value)
    if production:
        facts["llm/backends"] = backends_table(state.backends)
        facts["llm/live_since"] = dg.MetadataValue.timestamp(production.since)
    return dg.AssetObservation(
        asset_key=model_key(state.model, VLLM_DEPLOYMENT), partition=state.tenant, metadata=facts
    )
