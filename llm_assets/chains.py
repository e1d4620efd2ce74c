"""The chain: one job per model that takes one tenant from its dataset to a live deployment."""

from collections.abc import Mapping

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import (
    UnresolvedAssetJobDefinition,  # what define_asset_job returns; dagster hands the name on nowhere
)

from llm_assets.catalog.models import ModelEntry
from llm_assets.keys import base_model_key

LINE_TAG = "llm_assets/line"  # `<tenant>.<model>`; dagster.yaml lets one run at a time have it

Chains = Mapping[str, UnresolvedAssetJobDefinition]  # by model


def chain_name(model: str) -> str:
    return f"{model}_chain"


def chain(model: ModelEntry) -> UnresolvedAssetJobDefinition:
    return dg.define_asset_job(
        chain_name(model.name),
        selection=dg.AssetSelection.groups(model.name)
        | dg.AssetSelection.assets(base_model_key(model.base_model)),
        executor_def=dg.in_process_executor,
        description=f"Takes one tenant's dataset to a live {model.name}: a step with nothing new to do "
        "reuses what is there.",
    )


def line_tags(tenant: str, model: str) -> dict[str, str]:
    return {LINE_TAG: f"{tenant}.{model}"}


def run_request(tenant: str, model: str, *, run_key: str, tags: dict[str, str]) -> dg.RunRequest:
    return dg.RunRequest(
        job_name=chain_name(model),
        partition_key=tenant,
        run_key=run_key,
        tags=line_tags(tenant, model) | tags,
    )
