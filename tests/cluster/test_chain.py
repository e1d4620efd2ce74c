"""With the real engine: a dataset becomes an adapter and a merged model that answers."""

from pathlib import Path

import dagster as dg
import pytest

from llm_assets.runs import QUIET
from resources.artifact_store.artifacts import Line
from resources.kubernetes.compute import KubernetesCompute
from resources.seams.compute import Compute, Outcome, Output, WorkOrder
from tests.cluster.conftest import ClusterSite
from tests.e2e.work_orders import KNOWN, RECIPE, TEMPLATE, rows, write_dataset

pytestmark = [pytest.mark.cluster, pytest.mark.engine]
MODEL = "support_bot"


def run(compute: Compute, order: WorkOrder) -> Outcome:
    @dg.op
    def carry_out(context: dg.OpExecutionContext) -> Outcome:
        return compute.run(context, order)

    @dg.job
    def alone() -> None:
        carry_out()

    with dg.DagsterInstance.ephemeral() as instance:
        done = alone.execute_in_process(instance=instance, run_config=QUIET)
    outcome: Outcome = done.output_for_node("carry_out")
    return outcome


def test_a_dataset_becomes_a_model_that_answers_its_known_questions(
    cluster_site: ClusterSite, tiny_model: Path, tmp_path: Path
) -> None:
    store, pods = cluster_site.store("chain", tmp_path / "cache"), cluster_site.pods("chain")
    compute = KubernetesCompute(
        cluster=cluster_site.cluster,
        pods=pods,
        store=store,
        shared_namespace=cluster_site.shared_namespace,
        start_timeout_s=600,
        seconds=1800,
    )
    (tmp_path / "base").mkdir()
    for file in tiny_model.iterdir():
        (tmp_path / "base" / file.name).write_bytes(file.read_bytes())
    base = store.publish(Line(collection="base_models", tenant=None, name="tiny"), tmp_path / "base", {})
    write_dataset(tmp_path / "data", "sft", rows("sft"))
    of_tenant = {"tenant": cluster_site.tenant, "name": MODEL}
    dataset = store.publish(Line(collection="datasets", **of_tenant), tmp_path / "data", {})
    recipe = RECIPE | {"num_train_epochs": 40, "lora_rank": 32, "learning_rate": 0.01}
    common = {"recipe": recipe, "template": TEMPLATE, "device": "cpu"}

    trained = run(
        compute,
        WorkOrder(
            engine="train",
            worker="train",
            inputs={"base": base, "dataset": dataset},
            params=common | {"base_model": "tiny"},
            output=Output(line=Line(collection="adapters", **of_tenant), fingerprint="sha256:adapter"),
        ),
    )
    assert trained.result["steps"] == 160
    adapter = store.finish(trained.draft, {"fingerprint": "sha256:adapter"})
    store.verify(adapter)

    merged_by = run(
        compute,
        WorkOrder(
            engine="train",
            worker="merge",
            inputs={"base": base, "adapter": adapter},
            params=common | {"questions": list(KNOWN), "max_new_tokens": 24, "merge": "stream"},
            output=Output(
                line=Line(collection="models", **of_tenant), fingerprint="sha256:merged", parents=(base,)
            ),
        ),
    )
    answers = tuple(merged_by.result["answers"])
    assert {each["question"]: each["text"] for each in answers} == KNOWN
    merged = store.finish(merged_by.draft, {"fingerprint": "sha256:merged"})
    store.verify(merged)
