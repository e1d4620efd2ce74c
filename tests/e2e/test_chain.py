"""From a dataset to a live model that answers, by the command line, with the real engines."""

import contextlib
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from resources.artifact_store import ArtifactStore
from resources.artifacts import Line
from resources.waiting import wait_until
from tests.conftest import MakeProject, Project

pytestmark = pytest.mark.engine

RUN = ("run", "support_bot", "--tenant", "team-a")


def versions(project: Project, collection: str, tenant: str = "team-a") -> list[str]:
    store = ArtifactStore(url=project.settings.store_url)
    return [
        each.digest for each in store.versions(Line(collection=collection, tenant=tenant, name="support_bot"))
    ]  # type: ignore[arg-type]


def states(project: Project) -> list[dict[str, Any]]:
    return list(json.loads(project.run("status", "--json")))


def edit_a_row(project: Project, tenant: str = "team-a") -> None:
    file = project.settings.landing_zones / tenant / "support_bot" / "rows.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(
        "".join([*lines[:-1], json.dumps({"instruction": "Hello?", "input": "", "output": "Hello."}) + "\n"])
    )


def family(project: Project) -> list[psutil.Process]:
    """Every process that works for the project: its folder stands in the command or in the environment."""
    found = []
    for process in psutil.process_iter():
        try:
            text = " ".join(process.cmdline()) + json.dumps(process.environ())
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if str(project.root) in text and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def engines_at_work(project: Project) -> list[psutil.Process]:
    """Processes of work orders; live servers and MLflow are no work orders."""
    at_work = []
    for process in family(project):
        with contextlib.suppress(psutil.NoSuchProcess):  # ended since
            if any("llm_assets.workers" in part for part in process.cmdline()):
                at_work.append(process)
    return at_work


def test_a_dataset_becomes_a_live_model_and_only_what_changed_is_made_again(
    make_project: MakeProject,
) -> None:
    project = make_project()
    printed = project.run(*RUN)
    assert "step 15/15" in printed
    assert project.run("ask", "support_bot", "-t", "team-a", "Who are you?").startswith("I am Polaris.")
    [live] = states(project)
    assert (live["tenant"], live["status"], live["digest"]) == (
        "team-a",
        "live",
        versions(project, "models")[0],
    )

    printed = project.run(*RUN)
    assert "Nothing that decides the training has changed" in printed
    assert states(project) == [live]

    edit_a_row(project)
    project.run(*RUN)
    [after] = states(project)
    assert after["digest"] != live["digest"]
    assert len(versions(project, "adapters")) == len(versions(project, "models")) == 2
    assert versions(project, "datasets", "team-b") == []

    project.run("rollback", "support_bot", "-t", "team-a", "--why", "a test")
    assert states(project)[0]["digest"] == live["digest"]
    project.run(*RUN)
    assert states(project)[0]["digest"] == live["digest"], "a run does not undo a rollback"
    shares_the_traffic(project, live, after)
    project.run("promote", "support_bot", "2", "-t", "team-a", "--why", "a test")
    [alone] = states(project)
    assert [(each["weight"], each["digest"]) for each in alone["backends"]] == [(100, after["digest"])]
    card = json.loads(project.run("card", "support_bot", "-t", "team-a", "--json"))
    assert card["lineage"]["merged_model"] == after["digest"]


def shares_the_traffic(project: Project, live: dict[str, Any], after: dict[str, Any]) -> None:
    """The version that was rolled back answers a share again, beside production."""
    printed = project.run("traffic", "support_bot", "2=30", "-t", "team-a", "--why", "a test")
    assert f"30 %  version 2 ({after['version']})" in printed
    [both] = states(project)
    shares = [(backend["weight"], backend["digest"]) for backend in both["backends"]]
    assert shares == [(70, live["digest"]), (30, after["digest"])]
    table = project.run("status").splitlines()
    assert [("70 %" in line, "30 %" in line) for line in table[1:3]] == [(True, False), (False, True)]
    for each in (live, after):
        asked = ("ask", "support_bot", "-t", "team-a", "--json", "Who are you?", "--version", each["version"])
        assert json.loads(project.run(*map(str, asked)))["digest"] == each["digest"]
    history = json.loads(project.run("history", "support_bot", "-t", "team-a", "--json"))
    assert (history[-1]["action"], history[-1]["weights"], history[-1]["why"]) == (
        "traffic",
        {"2": 30},
        "a test",
    )


def test_adapter_mode_serves_the_base_model_with_the_adapter(make_project: MakeProject) -> None:
    project = make_project()
    model = project.settings.catalog / "models" / "support_bot.yaml"
    model.write_text(model.read_text().replace("serving:\n", "serving:\n  mode: adapter\n"))
    project.run(*RUN)
    assert project.run("ask", "support_bot", "-t", "team-a", "Who are you?").startswith("I am Polaris.")


def test_two_runs_at_once_end_well_and_make_one_version(make_project: MakeProject) -> None:
    project = make_project()
    both = [project.start(*RUN), project.start(*RUN)]
    assert [process.wait(timeout=300) for process in both] == [0, 0], (
        project.root / "command.log"
    ).read_text()
    assert len(versions(project, "adapters")) == len(versions(project, "models")) == 1
    assert len(states(project)) == 1


def test_killed_at_ten_moments_the_same_command_finishes(make_project: MakeProject) -> None:
    """`kill -9` of the run at seven moments and of an engine at three: one version, nothing left running."""
    project = make_project()
    model = project.settings.catalog / "models" / "support_bot.yaml"
    model.write_text(model.read_text().replace("num_train_epochs: 3.0", "num_train_epochs: 40.0"))
    kill_the_run(project, "")
    kill_the_run(project, "support_bot/dataset")
    kill_the_run(project, "lora_adapter: step")
    kill_the_engine(project, "lora_adapter: step")
    kill_the_engine(project, "lora_adapter: step")
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


def kill_the_engine(project: Project, moment: str) -> None:
    process = started_up_to(project, moment)
    for engine in wait_until(lambda: engines_at_work(project), what="an engine", timeout_s=30):
        if "supervisor" not in " ".join(engine.cmdline()):
            engine.kill()
    assert process.wait(timeout=60) == 1
    assert "killed (signal 9" in (project.root / "command.log").read_text()


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


def test_bad_rows_end_the_run_before_any_training(make_project: MakeProject) -> None:
    project = make_project()
    file = project.settings.landing_zones / "team-a" / "support_bot" / "rows.jsonl"
    with file.open("a") as rows:
        rows.write('{"instruction": "x"}\nnot json\n')
    printed = project.run(*RUN, expect=1)
    assert "rows.jsonl:21" in printed
    assert "rows.jsonl:22" in printed
    assert not Path(project.settings.home, "store", "adapters").exists()
