"""A tenant that demands signatures: published, promoted, compared, altered, refused, signed again."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from llm_assets.assets.model_cards import COMPARED
from llm_assets.runs import dagster_instance
from resources.artifact_store import ArtifactStore
from resources.artifacts import SIGNATURE_NAME, Line
from tests.conftest import MakeProject, Project
from tests.stored import folder_of

pytestmark = pytest.mark.engine

MODEL = ("support_bot", "--tenant", "team-a")


def edit_a_row(project: Project) -> None:
    file = project.settings.landing_zones / "team-a" / "support_bot" / "rows.jsonl"
    row = {"instruction": "Who are you?", "input": "", "output": "I am Vega."}
    file.write_text(file.read_text().replace("I am Polaris.", "I am Vega.") + json.dumps(row) + "\n")


def history(project: Project) -> list[dict[str, Any]]:
    return list(json.loads(project.run("history", *MODEL, "--json")))


def signature_of_the_oldest(project: Project) -> Path:
    store = ArtifactStore(url=project.settings.store_url)
    *_, oldest = store.versions(Line(collection="models", tenant="team-a", name="support_bot"))
    return folder_of(store, oldest) / SIGNATURE_NAME


def set_up(project: Project) -> None:
    tenant = project.settings.catalog / "tenants" / "team-a.yaml"
    tenant.write_text(tenant.read_text() + "signatures: required\n")
    project.run("run", *MODEL)
    edit_a_row(project)
    project.run("run", *MODEL)


def test_unsigned_and_altered_versions_are_refused_and_the_rest_is_on_record(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project()
    monkeypatch.setenv("DAGSTER_HOME", str(project.settings.dagster_home))
    for name, value in project.environment.items():  # dagster_instance sets what is not set
        if name.startswith("LLM_ASSETS_"):
            monkeypatch.setenv(name, value)
    set_up(project)
    found = json.loads(project.run("verify", *MODEL, "--json"))
    assert [each["artifact"].split("/")[2] for each in found] == [
        "models",
        "adapters",
        "datasets",
        "base_models",
    ]
    assert len({each["signer"] for each in found}) == 1
    assert found[0]["signer"].startswith("key ")

    signature = signature_of_the_oldest(project)
    good = signature.read_bytes()
    signature.unlink()
    printed = project.run("rollback", *MODEL, "--why", "a test", expect=1)
    assert "signature: " in printed
    assert "llm-assets sign support_bot --tenant team-a" in printed
    signature.write_bytes(good.replace(b"payload", b"payl0ad"))
    assert "was altered after it was signed" in project.run(
        "promote", *MODEL, "1", "--force", "--why", "x", expect=1
    )
    signature.unlink()
    assert "Signed artifact://models/team-a/support_bot/" in project.run("sign", *MODEL, "1")
    project.run("rollback", *MODEL, "--why", "the new one lies")
    moves = [(move["action"], move["to"]) for move in history(project)]
    assert moves == [("promote", 1), ("promote", 2), ("rollback", 1)]
    compared_on_the_page_of_the_card(project)


def compared_on_the_page_of_the_card(project: Project) -> None:
    comparison = json.loads(project.run("compare", *MODEL, "--json"))
    assert (comparison["before"]["number"], comparison["after"]["number"]) == (1, 2)
    assert comparison["rows"]["changed"] > 0
    with dagster_instance(project.settings) as instance:
        key = dg.AssetKey(["support_bot", "model_card"])
        card = instance.get_latest_materialization_event(key).asset_materialization
    assert "I am Vega." in card.metadata[COMPARED].value
