"""`promotion: manual`, the default: a chain that did its work and waits for a person is no failure."""

import dagster as dg
import pytest

from llm_assets.runs import dagster_instance
from tests.conftest import MakeProject, Project
from tests.e2e.projects import RUN, edit_a_row, enter, states

pytestmark = pytest.mark.engine

PROMOTE = "llm-assets promote support_bot --tenant team-a"


def candidate_of(project: Project) -> tuple[int, str]:
    [state] = states(project)
    return state["waiting_candidate"]["number"], state["waiting_candidate"]["version"]


def every_run_succeeded(project: Project) -> None:
    with dagster_instance(project.settings) as instance:
        assert {run.status for run in instance.get_runs()} == {dg.DagsterRunStatus.SUCCESS}


def test_a_chain_whose_candidate_waits_for_a_person_succeeds_and_says_so(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project()
    enter(project, monkeypatch)
    model = project.settings.catalog / "models" / "support_bot.yaml"
    model.write_text(model.read_text().replace("promotion: automatic", "promotion: manual"))

    for _ in ("the first run", "one with nothing to do"):
        printed = project.run(*RUN)
        number, version = candidate_of(project)
        says = f"candidate {number} ({version}) is waiting: {PROMOTE}"
        assert f"team-a/support_bot: {says}" in printed
        assert number == 1
        assert "Nothing was deployed yet" in (shown := project.run("status"))
        assert says in shown
    assert [state["status"] for state in states(project)] == ["absent"]
    with dagster_instance(project.settings) as instance:
        key = dg.AssetKey(["support_bot", "vllm_deployment"])
        assert instance.get_latest_materialization_event(key) is None
        [observed] = instance.fetch_observations(key, limit=1).records
        said = (
            observed.asset_observation.metadata["llm/waiting_candidate"] if observed.asset_observation else 0
        )
        assert said == dg.MetadataValue.text(says)

    project.run("promote", "support_bot", "-t", "team-a", "--why", "reviewed")
    [live] = states(project)
    assert (live["status"], live["version"], live["waiting_candidate"]) == ("live", version, None)
    assert "is waiting" not in project.run(*RUN) + project.run("status")

    edit_a_row(project)
    printed = project.run(*RUN)
    number, newer = candidate_of(project)
    assert number == 2
    assert f"candidate 2 ({newer}) is waiting: {PROMOTE}" in printed
    assert states(project)[0]["version"] == version
    every_run_succeeded(project)
