"""What Dagster calls stale: exactly what a change touches, and nothing when nothing changed."""

from collections.abc import Iterator, Mapping

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver  # what the UI asks
from dagster._core.loader import LoadingContextForTest

from llm_assets.catalog.loading import load_catalog
from llm_assets.chains import chain_name
from llm_assets.graph import build_definitions
from llm_assets.keys import DATASET, LORA_ADAPTER, base_model_key, model_key
from llm_assets.runs import dagster_instance, execute_chain, new_run_id
from tests.conftest import MakeProject, Project
from tests.e2e.projects import edit_a_row, enter, versions

pytestmark = pytest.mark.engine

MODEL = "support_bot"
TENANTS = ("team-a", "team-b")
KEYS = (base_model_key("tiny"), model_key(MODEL, DATASET), model_key(MODEL, LORA_ADAPTER))


class Graph:
    """The graph of a project, executed in this process as far as the adapter."""

    def __init__(self, project: Project, instance: dg.DagsterInstance) -> None:
        self._definitions = build_definitions(project.settings, load_catalog(project.settings.catalog))
        self._instance = instance

    def materialize(self, tenant: str, *keys: dg.AssetKey) -> None:
        result = execute_chain(
            self._instance,
            self._definitions.resolve_job_def(chain_name(MODEL)),
            model=MODEL,
            tenant=tenant,
            tenants=TENANTS,
            run_id=new_run_id(),
            op_config={},
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
