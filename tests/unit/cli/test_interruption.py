"""What Ctrl-C says, while parts of the local stack run."""

import os
from pathlib import Path

import pytest

from llm_assets.cli.interruption import interrupted
from llm_assets.installation.settings import find_settings
from llm_assets.stack import UI
from resources.local.serving.servers import KIND
from resources.mlflow.server import NAME as MLFLOW
from resources.processes.local_processes import LocalProcesses

VLLM = {"kind": KIND, "tenant": "team-a", "model": "support_bot"}


def test_what_runs_on_is_named_with_how_to_stop_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_ASSETS_HOME", str(tmp_path))
    processes = LocalProcesses(find_settings().processes)
    assert interrupted() == "Interrupted."
    try:
        start(processes, MLFLOW)
        assert interrupted() == "Interrupted. MLflow still runs; `llm-assets down` stops it."
        for name in (UI, "gateway", "gateway-keeper"):
            start(processes, name)
        start(processes, "vllm--1", **VLLM)
        assert interrupted("Canceled.") == (
            "Canceled. MLflow, the Dagster UI, the gateway and vLLM of team-a/support_bot still run; "
            "`llm-assets down` stops them."
        )
    finally:
        for record in processes.all():
            processes.stop(record.name)
    assert interrupted() == "Interrupted."


def start(processes: LocalProcesses, name: str, **attributes: str) -> None:
    log = processes.folder.parent / f"{name}.log"
    processes.start(name, command=("sleep", "600"), env=dict(os.environ), log=log, attributes=attributes)
