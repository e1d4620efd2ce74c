"""The chain: one job per model that takes one tenant from its dataset to a live deployment."""

from collections.abc import Mapping, Sequence

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph  # what `resolve` asks for

from llm_assets.catalog.models import ModelEntry
from llm_assets.executor import executor_of
from llm_assets.installation.profiles import Profile

LINE_TAG = "llm_assets/line"  # `<tenant>.<model>`; dagster.yaml lets one run at a time have it

Chains = Mapping[str, dg.JobDefinition]  # by model


def chain_name(model: str) -> str:
    return f"{model}_chain"


def chain(model: ModelEntry, parts: Sequence[dg.AssetsDefinition], profile: Profile) -> dg.JobDefinition:
    """The job that executes `parts`: the base model, the model's assets and their checks.

    It is resolved here, against these few: left to the repository, each job is cut out of the graph of all
    models, which takes a second of CPU at 100 models and grows with their square.
    """
    job = dg.define_asset_job(
        chain_name(model.name),
        selection=dg.AssetSelection.all(),
        executor_def=executor_of(profile.state),
        description=f"Takes one tenant's dataset to a live {model.name}: a step with nothing new to do "
        "reuses what is there.",
    )
    return job.resolve(AssetGraph.from_assets(parts), resource_defs=profile.resources())


def line_tags(tenant: str, model: str) -> dict[str, str]:
    return {LINE_TAG: f"{tenant}.{model}"}


def run_request(tenant: str, model: str, *, run_key: str, tags: dict[str, str]) -> dg.RunRequest:
    return dg.RunRequest(
        job_name=chain_name(model),
        partition_key=tenant,
        run_key=run_key,
        tags=line_tags(tenant, model) | tags,
    )
