"""What a base model says before any tuning: a work order outside of any asset, recorded nowhere."""

import tempfile
from pathlib import Path
from typing import Any

import dagster as dg

from llm_assets.catalog.base_models import BaseModelEntry
from llm_assets.installation.profiles import profile_of
from llm_assets.installation.settings import Settings
from llm_assets.keys import base_model_key
from llm_assets.lineage import materialized
from llm_assets.runs import QUIET, dagster_instance
from resources.compute import LocalCompute, WorkOrder


def answer_of_base_model(settings: Settings, base: BaseModelEntry, question: str, max_tokens: int) -> str:
    """The greedy answer of the materialized base model.

    Raises:
        LineageError: The base model was never materialized.
        WorkOrderError: The engine failed.
    """
    profile = profile_of(settings)
    store = profile.store
    with dagster_instance(settings) as instance:
        artifact = materialized(instance, store, base_model_key(base.name))
    order = {"template": base.template, "questions": [question], "max_new_tokens": max_tokens}
    settings.work.mkdir(parents=True, exist_ok=True)
    with (
        store.hold(artifact) as held,
        tempfile.TemporaryDirectory(prefix="answer-", dir=settings.work) as folder,
    ):
        order["model_folder"] = str(held.folder)
        work = WorkOrder(engine="train", worker="answer", order=order, folder=Path(folder))
        return str(_execute(profile.compute, work)["text"])


def _execute(compute: LocalCompute, work: WorkOrder) -> dict[str, Any]:
    @dg.op
    def answer(context: dg.OpExecutionContext) -> dict[str, Any]:
        return dict(compute.run(context, work)["answers"][0])

    @dg.job
    def answers() -> None:
        answer()

    with dg.DagsterInstance.ephemeral() as instance:
        result = answers.execute_in_process(instance=instance, run_config=QUIET)
        return dict(result.output_for_node("answer"))
