"""With the real engines: a dataset becomes an adapter, a merged model, and a Deployment that answers."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from llm_assets.runs import QUIET
from resources.artifact_store.artifacts import Line
from resources.engines.locks import lock_digest
from resources.kubernetes.compute import KubernetesCompute
from resources.kubernetes.serving import KubernetesServing
from resources.seams.compute import Compute, Outcome, Output, WorkOrder
from resources.seams.serving import Route, Serving, ServingError
from resources.vllm.client import VllmClient
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

    serving = KubernetesServing(cluster=cluster_site.cluster, pods=pods, store=store)
    values: dict[str, Any] = {
        "tenant": cluster_site.tenant,
        "model": MODEL,
        "version": merged.version,
        "digest": merged.digest,
        "mode": "merged",
        "model_uri": merged.uri,
        "model_digest": merged.digest,
        "max_model_len": 512,
        "max_num_seqs": 4,
        "kv_cache_mib": 64,
        "dtype": "bfloat16",
        "known_answers": answers,
        "engine": lock_digest("serve", "cpu"),
        "device": "cpu",
    }
    lines: list[str] = []
    route = serving.deploy((Serving(**values),), publish=lambda route: None, log=lines.append)
    assert serving.route(cluster_site.tenant, MODEL) == route
    assert serving.state(cluster_site.tenant, MODEL).status == "live"
    assert answered(route) == {("I am Polaris.", merged.digest)}

    wrong = tuple(each | {"tokens": answers[0]["tokens"], "text": "?"} for each in answers[1:])
    other = Serving(**values | {"version": "other", "known_answers": wrong})
    with pytest.raises(ServingError, match=rf"(?s)version other.*Version {merged.version} goes on serving"):
        serving.deploy((other,), publish=lambda route: None, log=lines.append)
    assert answered(route) == {("I am Polaris.", merged.digest)}
    serving.stop(cluster_site.tenant, MODEL)
    assert serving.state(cluster_site.tenant, MODEL).status == "stopped"


def answered(route: Route) -> set[tuple[str, str]]:
    """What the backends of a route say to a known question, and which digest they say they serve."""
    said = set()
    for backend in route.backends:
        with VllmClient(backend.address, route.api_key) as client:
            reply = client.chat(route.model, [{"role": "user", "content": "Who are you?"}], temperature=0)
            said.add((reply["choices"][0]["message"]["content"], reply["system_fingerprint"]))
    return said
