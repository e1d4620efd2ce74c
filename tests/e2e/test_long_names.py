"""A work order of the longest names in a state folder with a long path, carried out by the real engine."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from llm_assets.installation.profiles import PACKAGE
from llm_assets.runs import QUIET
from resources.compute import LocalCompute, WorkOrder
from tests.conftest import LONG_HOME
from tests.e2e.work_orders import rows, train_order, write_dataset

pytestmark = pytest.mark.engine

TENANT, MODEL = "t" * 63, "m" * 63


def carried_out(compute: LocalCompute, work: WorkOrder) -> dict[str, Any]:
    @dg.op
    def carry_out(context: dg.OpExecutionContext) -> dict[str, Any]:
        return compute.run(context, work)

    @dg.job
    def orders() -> None:
        carry_out()

    with dg.DagsterInstance.ephemeral() as instance:
        done = orders.execute_in_process(instance=instance, run_config=QUIET)
        return dict(done.output_for_node("carry_out"))


def test_sixteen_preprocessing_workers_train_below_a_long_path(
    engines: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """As LLaMA-Factory's web UI writes it. The workers' manager opens a socket below TMPDIR."""
    home = tmp_path / "home".ljust(LONG_HOME - len(str(tmp_path)), "x")
    folder = home / "work" / "adapters" / TENANT / MODEL / ("f" * 16)
    dataset = write_dataset(tmp_path / "data", "sft", rows("sft"))
    order = train_order(tiny_model, dataset, folder, preprocessing_num_workers=16, num_train_epochs=1)
    compute = LocalCompute(engines=str(engines), package=PACKAGE)
    result = carried_out(compute, WorkOrder(engine="train", worker="train", order=order, folder=folder))
    assert result["steps"] == 4
    assert (folder / "output" / "adapter_model.safetensors").is_file()
    assert not (folder / "tmp").exists()
