"""New tenants in the catalog become partitions of the models that they use."""

import dagster as dg

from llm_assets.catalog.models import ModelEntry
from llm_assets.installation.settings import Settings
from llm_assets.sensors.current_catalog import current_tenants

INTERVAL_S = 30


def tenants(
    settings: Settings, models: tuple[ModelEntry, ...], status: dg.DefaultSensorStatus
) -> dg.SensorDefinition:
    """Adds partitions; never removes one, because its history is evidence."""

    @dg.sensor(name="tenants", minimum_interval_seconds=INTERVAL_S, default_status=status)
    def _sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        """New tenants in the catalog become partitions of the models that they use."""
        now = current_tenants(settings)
        requests = []
        for model in models:
            known = set(context.instance.get_dynamic_partitions(model.name))
            new = [name for name, tenant in now.items() if model.name in tenant.models and name not in known]
            if new:
                requests.append(dg.DynamicPartitionsDefinition(name=model.name).build_add_request(new))
        if not requests:
            return dg.SkipReason(f"No new tenants among {len(now)} of {len(models)} models.")
        return dg.SensorResult(dynamic_partitions_requests=requests)

    return _sensor
