"""What a base model says before any tuning: a work order outside of any asset, recorded nowhere."""

import dagster as dg

from llm_assets.catalog.base_models import BaseModelEntry
from llm_assets.installation.profiles import profile_of
from llm_assets.installation.settings import Settings
from llm_assets.keys import base_model_key
from llm_assets.lineage import materialized
from llm_assets.runs import QUIET, dagster_instance
from resources.seams.compute import Compute, WorkOrder


def answer_of_base_model(settings: Settings, base: BaseModelEntry, question: str, max_tokens: int) -> str:
    """The greedy answer of the materialized base model.

    Raises:
        LineageError: The base model was never materialized.
        WorkOrderError: The engine failed.
    """
    profile = profile_of(settings)
    with dagster_instance(settings) as instance:
        artifact = materialized(instance, profile.store, base_model_key(base.name))
    order = WorkOrder(
        engine="train",
        worker="answer",
        inputs={"model": artifact},
        params={"template": base.template, "questions": [question], "max_new_tokens": max_tokens},
    )
    return _execute(profile.compute, order)


def _execute(compute: Compute, order: WorkOrder) -> str:
    @dg.op
    def answer(context: dg.OpExecutionContext) -> str:
        return str(compute.run(context, order).result["answers"][0]["text"])

    @dg.job
    def answers() -> None:
        answer()

    with dg.DagsterInstance.ephemeral() as instance:
        result = answers.execute_in_process(instance=instance, run_config=QUIET)
        return str(result.output_for_node("answer"))
