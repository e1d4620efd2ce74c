"""The graph of a catalog: wires assets, checks, jobs, sensors, schedules and resources. Nothing else."""

import dagster as dg

from llm_assets.assets.adapters import adapter_checks, lora_adapter
from llm_assets.assets.base_models import base_model
from llm_assets.assets.datasets import dataset, dataset_checks
from llm_assets.assets.deployments import deployment_checks, vllm_deployment
from llm_assets.assets.merged_models import merged_model, merged_model_checks
from llm_assets.assets.model_cards import model_card, model_card_checks
from llm_assets.assets.signature_checks import signature_check
from llm_assets.assets.usage import usage
from llm_assets.automation import schedule_status, sensor_status
from llm_assets.catalog.loading import Catalog
from llm_assets.catalog.models import ModelEntry
from llm_assets.chains import Chains, chain
from llm_assets.executor import executor_of
from llm_assets.installation.profiles import profile_of
from llm_assets.installation.settings import Settings
from llm_assets.schedules.usage import usage_schedule
from llm_assets.sensors.abandoned_runs import abandoned_runs
from llm_assets.sensors.changes import experiments, landing_zones
from llm_assets.sensors.deployments import deployments
from llm_assets.sensors.recipes import recipes
from llm_assets.sensors.tenants import tenants


def build_definitions(settings: Settings, catalog: Catalog) -> dg.Definitions:
    """The graph of a catalog. Its size grows with models, not with tenants."""
    profile = profile_of(settings)
    resources = profile.resources()
    base_models = {entry.name: base_model(entry) for entry in catalog.base_models.values()}
    assets: list[dg.AssetsDefinition] = [*base_models.values(), usage(catalog)]
    checks: list[dg.AssetChecksDefinition] = []
    chains: dict[str, dg.JobDefinition] = {}
    for model in catalog.models.values():
        own, own_checks = _assets(catalog, model), _checks(catalog, model)
        chains[model.name] = chain(model, [base_models[model.base_model], *own, *own_checks], profile)
        assets += own
        checks += own_checks
    return dg.Definitions(
        assets=assets,
        asset_checks=checks,
        jobs=list(chains.values()),
        sensors=_sensors(settings, catalog, chains),
        schedules=[usage_schedule(settings, schedule_status())],
        resources=resources,
        executor=executor_of(profile.state),
    )


def build_chain(settings: Settings, catalog: Catalog, model: ModelEntry) -> dg.JobDefinition:
    """The chain of one model, without the definitions of all others."""
    base = base_model(catalog.base_models[model.base_model])
    parts = [base, *_assets(catalog, model), *_checks(catalog, model)]
    return chain(model, parts, profile_of(settings))


def _assets(catalog: Catalog, model: ModelEntry) -> list[dg.AssetsDefinition]:
    trained = [dataset(catalog, model), lora_adapter(catalog, model)]
    if model.is_reward_model:
        return trained  # it scores answers and gives none: there is nothing to merge, ask or serve
    served = [vllm_deployment(catalog, model)] if model.serving.mode != "none" else []
    return [*trained, merged_model(model), model_card(catalog, model), *served]


def _checks(catalog: Catalog, model: ModelEntry) -> list[dg.AssetChecksDefinition]:
    trained = [*dataset_checks(model), *adapter_checks(model)]
    if model.is_reward_model:
        return trained
    served = deployment_checks(model) if model.serving.mode != "none" else []
    merged = [*merged_model_checks(model), signature_check(catalog, model)]
    return [*trained, *merged, *model_card_checks(model), *served]


def _sensors(settings: Settings, catalog: Catalog, chains: Chains) -> list[dg.SensorDefinition]:
    models, status = tuple(catalog.models.values()), sensor_status()
    return [
        tenants(settings, models, status),
        landing_zones(settings, chains, status),
        experiments(settings, chains, status),
        recipes(settings, chains, status),
        deployments(models, status),
        abandoned_runs(status),
    ]
