"""`kill -9` at every step of a chain; the same command finishes it."""

import signal
import subprocess
import time

import psutil
import pytest

from llm_assets.work_orders import RETRY_AFTER_S
from llm_assets.workers import checkpoints
from resources.waiting import wait_until
from tests.conftest import MakeProject, Project
from tests.e2e.projects import RUN, engines_at_work, family, versions

pytestmark = pytest.mark.engine

AGAIN = f"Tried again in {RETRY_AFTER_S} s: "


def test_killed_at_ten_moments_the_same_command_finishes(make_project: MakeProject) -> None:
    """`kill -9` of the run at seven moments and of an engine at three, which is tried again once and killed
    again: one version, nothing left running.
    """
    project = make_project()
    model = project.settings.catalog / "models" / "support_bot.yaml"
    model.write_text(model.read_text().replace("num_train_epochs: 3.0", "num_train_epochs: 40.0"))
    kill_the_run(project, "")
    kill_the_run(project, "support_bot/dataset")
    kill_the_run(project, "lora_adapter: step")
    kill_the_engine(project, "lora_adapter: step")
    kill_the_engine(project, "lora_adapter: step", with_checkpoint=True)
    kill_the_run(project, "merged_model: merge runs")
    kill_the_engine(project, "merged_model: merge runs")
    kill_the_run(project, "support_bot/model_card")
    kill_the_run(project, "vllm_deployment: Starting vLLM")
    kill_the_run(project, "asking it the known questions")
    assert "Goes on from the checkpoint" in (project.root / "command.log").read_text()
    project.run(*RUN)
    assert len(versions(project, "adapters")) == len(versions(project, "models")) == 1
    assert "version 1 " in project.run(*RUN)
    [_] = [process for process in family(project) if "serve" in process.cmdline()]
    project.run("down")
    assert family(project) == []


def kill_the_run(project: Project, moment: str) -> None:
    process = started_up_to(project, moment)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not engines_at_work(project), what="the end of the engine", timeout_s=15)


def kill_the_engine(project: Project, moment: str, *, with_checkpoint: bool = False) -> None:
    """At the first try and at the second."""
    log = project.root / "command.log"
    before = log.read_text().count(AGAIN)
    process = started_up_to(project, moment)
    if with_checkpoint:
        wait_until(lambda: has_checkpoint(project), what="a checkpoint", timeout_s=30, every_s=0.01)
    end(project)
    wait_until(lambda: log.read_text().count(AGAIN) > before, what="the end of the first try", timeout_s=60)
    end(project)
    assert process.wait(timeout=60) == 1
    assert "killed (signal 9" in log.read_text()


def end(project: Project) -> None:
    for engine in wait_until(lambda: engines(project) or None, what="an engine", timeout_s=60, every_s=0.05):
        engine.kill()


def engines(project: Project) -> list[psutil.Process]:
    """Those that work orders run, without their supervisors."""
    return [each for each in engines_at_work(project) if "supervisor" not in " ".join(each.cmdline())]


def has_checkpoint(project: Project) -> bool:
    return any(project.settings.work.rglob(checkpoints.WHOLE))


def started_up_to(project: Project, moment: str) -> subprocess.Popen[bytes]:
    """Starts the run and returns when its output since then holds `moment`."""
    log = project.root / "command.log"
    before = log.stat().st_size if log.exists() else 0
    process = project.start(*RUN)
    wait_until(
        lambda: moment in log.read_bytes()[before:].decode(errors="replace"),
        what=f"{moment!r} in {log}",
        timeout_s=180,
        every_s=0.05,
        failed=lambda: None if process.poll() is None else f"the run ended: {log.read_text()[-2000:]}",
    )
    if not moment:
        time.sleep(1)  # somewhere in the imports
    return process
