"""Sensors that ask for one run of a tenant's whole chain when its files change.

`landing_zones` watches the datasets, `experiments` the recipes that data scientists commit. Both
remember folder stamps in their cursor; neither asks again for what a run has already taken in.
"""

from collections.abc import Callable
from dataclasses import dataclass

import dagster as dg

from llm_assets.catalog.tenants import TenantEntry
from llm_assets.chains import Chains, run_request
from llm_assets.folder_stamps import (
    DATASET_STAMP,
    EXPERIMENT_STAMP,
    files_of_experiments,
    stamps,
)
from llm_assets.installation.settings import Settings
from llm_assets.keys import DATASET, LORA_ADAPTER, model_key
from llm_assets.landing_zones import zones_of
from llm_assets.lineage import names_its_own, newest_materialization
from llm_assets.sensors.current_catalog import current_catalog, current_tenants
from llm_assets.sensors.watching import Watched, look

INTERVAL_S = 30
RUNS_PER_TICK = 100


def landing_zones(settings: Settings, chains: Chains, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """A new or changed dataset file asks for one run of that tenant's chain."""
    return _folder_sensor(
        "landing_zones",
        settings,
        chains,
        status,
        scan=zones_of(settings).stamps,
        taken_in=(DATASET, DATASET_STAMP),
        noun="datasets",
    )


def experiments(settings: Settings, chains: Chains, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """A new or changed experiment asks for one run of that tenant's chain."""
    return _folder_sensor(
        "experiments",
        settings,
        chains,
        status,
        scan=lambda: _experiments(settings),
        taken_in=(LORA_ADAPTER, EXPERIMENT_STAMP),
        noun="experiment folders",
    )


def _experiments(settings: Settings) -> dict[str, str]:
    current_catalog(settings)  # where they lie in Git with it, they are brought up to date
    return stamps(settings.experiments, files_of_experiments)


def _folder_sensor(
    name: str,
    settings: Settings,
    chains: Chains,
    status: dg.DefaultSensorStatus,
    *,
    scan: Callable[[], dict[str, str]],
    taken_in: tuple[str, str],
    noun: str,
) -> dg.SensorDefinition:
    @dg.sensor(
        name=name,
        jobs=list(chains.values()),
        minimum_interval_seconds=INTERVAL_S,
        default_status=status,
        description=f"Asks for one run of a tenant's chain when its {noun} change.",
    )
    def _sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        watched, at_rest = look(Watched.from_cursor(context.cursor), scan())
        tenants = current_tenants(settings) if at_rest else {}
        batch = [each for each in at_rest if _uses(tenants, chains, each)][:RUNS_PER_TICK]
        newest = {each: _taken_in(context.instance, taken_in, each) for each in batch}
        wanted = [each for each in batch if newest[each].stamp != watched.moving[each]]
        cursor = watched.settle(batch).to_cursor()
        if not wanted:
            context.update_cursor(cursor)
            waiting = len(watched.moving) - len(batch)
            return dg.SkipReason(
                f"Nothing to do among {len(watched.settled) + len(watched.moving)} {noun}; "
                f"{waiting} may still be being written."
            )
        requests = [_request(each, watched.moving[each], newest[each], noun) for each in wanted]
        partitions = [
            dg.DynamicPartitionsDefinition(name=model).build_add_request([tenant])
            for tenant, model in (name.split("/") for name in wanted)
        ]
        return dg.SensorResult(run_requests=requests, dynamic_partitions_requests=partitions, cursor=cursor)

    return _sensor


def _request(name: str, stamp: str, newest: "TakenIn", noun: str) -> dg.RunRequest:
    """One request per content and per state that it changes, so that going back to earlier files counts."""
    tenant, model = name.split("/")
    run_key = f"{name}@{stamp}.{newest.number}"
    return run_request(tenant, model, run_key=run_key, tags={"llm_assets/because": f"{noun} changed"})


def _uses(tenants: dict[str, TenantEntry], chains: Chains, name: str) -> bool:
    tenant, model = name.split("/")
    return model in chains and tenant in tenants and model in tenants[tenant].models


@dataclass(frozen=True, kw_only=True)
class TakenIn:
    """What the newest materialization was made from; None where it does not say, or names another's artifact.

    `number` grows with every one; 0 before the first.
    """

    stamp: object
    number: int


def _taken_in(instance: dg.DagsterInstance, where: tuple[str, str], name: str) -> TakenIn:
    tenant, model = name.split("/")
    kind, metadata_key = where
    record = newest_materialization(instance, model_key(model, kind), tenant)
    if record is None or not (event := record.asset_materialization):
        return TakenIn(stamp=None, number=0)
    value = event.metadata.get(metadata_key) if names_its_own(event, tenant) else None
    return TakenIn(stamp=value.value if value else None, number=record.storage_id)
