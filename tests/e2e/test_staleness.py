"""What Dagster calls stale: exactly what a change touches, and nothing when nothing changed."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver  # what the UI asks
from dagster._core.loader import LoadingContextForTest

from llm_assets.catalog.loading import load_catalog
from llm_assets.chains import chain_name
from llm_assets.graph import build_definitions
from llm_assets.installation.profiles import profile_of
from llm_assets.keys import DATASET, LORA_ADAPTER, base_model_key, model_key
from llm_assets.runs import dagster_instance, execute_chain, new_run_id
from resources.engines.installation import STAMP
from tests.conftest import ENGINES, MakeProject, Project
from tests.e2e.projects import edit_a_row, enter, versions

pytestmark = pytest.mark.engine

MODEL = "support_bot"
TENANTS = ("team-a", "team-b")
KEYS = (base_model_key("tiny"), model_key(MODEL, DATASET), model_key(MODEL, LORA_ADAPTER))


class Graph:
    """The graph of a project, executed in this process as far as the adapter."""

    def __init__(self, project: Project, instance: dg.DagsterInstance) -> None:
        self._definitions = build_definitions(project.settings, load_catalog(project.settings.catalog))
        self._instance, self._state = instance, profile_of(project.settings).state

    def materialize(self, tenant: str, *keys: dg.AssetKey, retrain: bool = False) -> None:
        result = execute_chain(
            self._instance,
            self._state,
            self._definitions.resolve_job_def(chain_name(MODEL)),
            model=MODEL,
            tenant=tenant,
            tenants=TENANTS,
            run_id=new_run_id(),
            op_config={f"{MODEL}__{LORA_ADAPTER}": {"config": {"retrain": True}}} if retrain else {},
            assets=keys,
        )
        assert result.success

    def stale(self) -> Mapping[str, list[str]]:
        """By tenant, the names of the assets that are not fresh."""
        graph = self._definitions.resolve_asset_graph()
        resolver = CachingStaleStatusResolver(self._instance, graph, LoadingContextForTest(self._instance))
        with dg.partition_loading_context(dynamic_partitions_store=self._instance):
            return {
                tenant: [
                    key.path[-1]
                    for key in KEYS
                    if resolver.get_status(key, tenant if graph.get(key).is_partitioned else None).value
                    != "FRESH"
                ]
                for tenant in TENANTS
            }


@pytest.fixture
def project(make_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = make_project()
    enter(made, monkeypatch)
    return made


@pytest.fixture
def graph(project: Project) -> Iterator[Graph]:
    with dagster_instance(project.settings) as instance:
        yield Graph(project, instance)


def test_a_touched_dataset_makes_only_its_own_tenants_adapter_stale(project: Project, graph: Graph) -> None:
    for tenant in TENANTS:
        graph.materialize(tenant, *KEYS)
    assert graph.stale() == {"team-a": [], "team-b": []}

    graph.materialize("team-a", *KEYS)
    assert graph.stale() == {"team-a": [], "team-b": []}
    assert len(versions(project, "adapters")) == 1, "an equal fingerprint is reused"

    edit_a_row(project)
    graph.materialize("team-a", KEYS[1])
    assert graph.stale() == {"team-a": [LORA_ADAPTER], "team-b": []}

    graph.materialize("team-a", KEYS[2])
    assert graph.stale() == {"team-a": [], "team-b": []}
    assert len(versions(project, "adapters")) == 2
    assert len(versions(project, "adapters", "team-b")) == 1


def upgraded(folder: Path) -> Path:
    """The installed train engine once more, as one that another lock made."""
    installed = (ENGINES / "train").resolve()
    made = folder / "train"
    made.mkdir(parents=True)
    for path in installed.iterdir():
        (made / path.name).symlink_to(path)
    (made / STAMP).unlink()
    stamp = json.loads((installed / STAMP).read_text())
    versions = stamp["versions"] | {"peft": "99.0"}
    (made / STAMP).write_text(json.dumps(stamp | {"lock_digest": "0" * 64, "versions": versions}))
    return folder


def test_an_engine_upgrade_trains_nobody_anew_until_it_is_asked_for(
    project: Project, graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph.materialize("team-a", *KEYS)
    [before] = versions(project, "adapters")
    assert "The installed engine trained every adapter." in project.run("engines", "adapters")

    project.environment["LLM_ASSETS_ENGINES"] = str(upgraded(tmp_path / "engines"))
    monkeypatch.setenv("LLM_ASSETS_ENGINES", project.environment["LLM_ASSETS_ENGINES"])
    with dagster_instance(project.settings) as instance:
        later = Graph(project, instance)
        later.materialize("team-a", *KEYS)
        assert versions(project, "adapters") == [before]
        assert later.stale()["team-a"] == []
        told = project.run("engines", "adapters")
        assert "now 99.0" in told
        assert "llm-assets run support_bot --tenant team-a --retrain" in told

        for _ in range(2):  # the second time it is the installed engine's already
            later.materialize("team-a", *KEYS, retrain=True)
            assert versions(project, "adapters") == [before, before], "the same packages give the same bytes"
        assert "The installed engine trained every adapter." in project.run("engines", "adapters")
