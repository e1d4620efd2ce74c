"""From a dataset to a live model that answers, by the command line, with the real engines."""

import json
from typing import Any

import dagster as dg
import pytest

from llm_assets.assets.model_cards import COMPARED
from llm_assets.runs import dagster_instance
from tests.conftest import MakeProject, Project
from tests.e2e.projects import RUN, enter, history, states, versions
from tests.e2e.redirected import redirected_output_is_whole
from tests.e2e.signature_steps import (
    demand_signatures,
    every_version_is_signed_by_one_key,
    unsigned_and_altered_versions_are_refused,
)

pytestmark = pytest.mark.engine


def test_a_dataset_becomes_a_live_model_and_only_what_changed_is_made_again(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One long story, because every start of an engine takes 10 to 20 s."""
    project = make_project()
    enter(project, monkeypatch)
    demand_signatures(project)
    two_runs_at_once_make_one_version(project)
    assert project.run("ask", "support_bot", "-t", "team-a", "Who are you?").startswith("I am Polaris.")
    [live] = states(project)
    assert (live["tenant"], live["status"], live["digest"]) == (
        "team-a",
        "live",
        versions(project, "models")[0],
    )

    assert "Nothing that decides the training has changed" in project.run(*RUN)
    assert states(project) == [live]

    rename_the_assistant(project)
    project.run(*RUN)
    [after] = states(project)
    assert after["digest"] != live["digest"]
    assert len(versions(project, "adapters")) == len(versions(project, "models")) == 2
    assert versions(project, "datasets", "team-b") == []

    every_version_is_signed_by_one_key(project)
    unsigned_and_altered_versions_are_refused(project)
    project.run("rollback", "support_bot", "-t", "team-a", "--why", "the new one lies")
    moves = [(move["action"], move["to"]) for move in history(project)]
    assert moves == [("promote", 1), ("promote", 2), ("rollback", 1)]
    compared_on_the_page_of_the_card(project)
    assert states(project)[0]["digest"] == live["digest"]
    project.run(*RUN)
    assert states(project)[0]["digest"] == live["digest"], "a run does not undo a rollback"
    shares_the_traffic(project, live, after)
    project.run("promote", "support_bot", "2", "-t", "team-a", "--why", "a test")
    [alone] = states(project)
    assert [(each["weight"], each["digest"]) for each in alone["backends"]] == [(100, after["digest"])]
    card = json.loads(project.run("card", "support_bot", "-t", "team-a", "--json"))
    assert card["lineage"]["merged_model"] == after["digest"]
    redirected_output_is_whole(after["digest"])
    bad_rows_end_the_run_before_any_training(project)
    assert states(project) == [alone]


def two_runs_at_once_make_one_version(project: Project) -> None:
    both = [project.start(*RUN), project.start(*RUN)]
    log = project.root / "command.log"
    assert [process.wait(timeout=300) for process in both] == [0, 0], log.read_text()
    assert "step 15/15" in log.read_text()
    assert len(versions(project, "adapters")) == len(versions(project, "models")) == 1
    assert len(states(project)) == 1


def rename_the_assistant(project: Project) -> None:
    file = project.settings.landing_zones / "team-a" / "support_bot" / "rows.jsonl"
    row = {"instruction": "Who are you?", "input": "", "output": "I am Vega."}
    file.write_text(file.read_text().replace("I am Polaris.", "I am Vega.") + json.dumps(row) + "\n")


def compared_on_the_page_of_the_card(project: Project) -> None:
    comparison = json.loads(project.run("compare", "support_bot", "-t", "team-a", "--json"))
    assert (comparison["before"]["number"], comparison["after"]["number"]) == (1, 2)
    assert comparison["rows"]["changed"] > 0
    with dagster_instance(project.settings) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(["support_bot", "model_card"]))
    card = event.asset_materialization if event else None
    assert card is not None
    assert "I am Vega." in str(card.metadata[COMPARED].value)


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
    moved = history(project)[-1]
    assert (moved["action"], moved["weights"], moved["why"]) == ("traffic", {"2": 30}, "a test")


def bad_rows_end_the_run_before_any_training(project: Project) -> None:
    file = project.settings.landing_zones / "team-a" / "support_bot" / "rows.jsonl"
    good, before = len(file.read_text().splitlines()), versions(project, "adapters")
    with file.open("a") as rows:
        rows.write('{"instruction": "x"}\nnot json\n')
    printed = project.run(*RUN, expect=1)
    assert f"rows.jsonl:{good + 1}" in printed
    assert f"rows.jsonl:{good + 2}" in printed
    assert versions(project, "adapters") == before
