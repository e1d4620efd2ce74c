"""A work order of the longest names in a state folder with a long path, carried out by the real engine."""

import shutil
from pathlib import Path

import dagster as dg
import pytest

from llm_assets.installation.profiles import PACKAGE
from llm_assets.runs import QUIET
from resources.artifact_store.artifacts import Line
from resources.artifact_store.store import ArtifactStore
from resources.local.compute import LocalCompute
from resources.seams.compute import Outcome, Output, WorkOrder
from tests.conftest import LONG_HOME
from tests.e2e.work_orders import RECIPE, TEMPLATE, rows, write_dataset

pytestmark = pytest.mark.engine

TENANT, MODEL = "t" * 63, "m" * 63


def carried_out(compute: LocalCompute, work: WorkOrder) -> Outcome:
    @dg.op
    def carry_out(context: dg.OpExecutionContext) -> Outcome:
        return compute.run(context, work)

    @dg.job
    def orders() -> None:
        carry_out()

    with dg.DagsterInstance.ephemeral() as instance:
        done = orders.execute_in_process(instance=instance, run_config=QUIET)
        outcome: Outcome = done.output_for_node("carry_out")
        return outcome


def test_sixteen_preprocessing_workers_train_below_a_long_path(
    engines: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """As LLaMA-Factory's web UI writes it. The workers' manager opens a socket below TMPDIR."""
    home = tmp_path / "home".ljust(LONG_HOME - len(str(tmp_path)), "x")
    store = ArtifactStore(url=f"file:{home / 'store'}")
    copied = shutil.copytree(tiny_model, tmp_path / "base")
    base = store.publish(Line(collection="base_models", tenant=None, name=MODEL), copied, {})
    data = write_dataset(tmp_path / "data", "sft", rows("sft"))
    dataset = store.publish(Line(collection="datasets", tenant=TENANT, name=MODEL), data, {})
    compute = LocalCompute(store=store, work=str(home / "work"), engines=str(engines), package=PACKAGE)
    order = WorkOrder(
        engine="train",
        worker="train",
        inputs={"base": base, "dataset": dataset},
        params={
            "recipe": RECIPE | {"preprocessing_num_workers": 16, "num_train_epochs": 1},
            "template": TEMPLATE,
            "device": "cpu",
        },
        output=Output(line=Line(collection="adapters", tenant=TENANT, name=MODEL), fingerprint="sha256:f"),
    )
    made = carried_out(compute, order)
    assert made.result["steps"] == 4
    assert store.finish(made.draft, {"fingerprint": "sha256:f"}).has("adapter_model.safetensors")
    assert not list((home / "work").rglob("tmp"))
