"""`llm-assets check` builds the definitions as Dagster will, and refuses what Dagster refuses."""

import json
from pathlib import Path

import dagster as dg
import pytest

from llm_assets.catalog.loading import load_catalog
from llm_assets.catalog.mistakes import CatalogError
from llm_assets.code_location import refusals_explained
from llm_assets.partitions import tenants_of
from tests.catalogs import Made, model
from tests.conftest import Project

MADE = Made(base_models=("tiny",), models={"bot": model("tiny")}, tenants={"team-a": ("bot",)})


@pytest.fixture
def project(tmp_path: Path) -> Project:
    MADE.write(tmp_path / "catalog")
    return Project(tmp_path)


def test_a_catalog_that_dagster_can_build_is_right(project: Project) -> None:
    assert json.loads(project.run("check", "--json"))["models"] == 1


def test_a_setting_that_keeps_the_location_from_loading_is_told(project: Project) -> None:
    project.environment["LLM_ASSETS_CACHE_GIB"] = "many"
    assert "LLM_ASSETS_CACHE_GIB='many' is not a size" in project.run("check", expect=2)


def test_weights_that_this_installations_store_cannot_stream_are_told(project: Project) -> None:
    file = project.settings.catalog / "models" / "bot.yaml"
    written = json.loads(file.read_text())
    file.write_text(json.dumps(written | {"serving": {"mode": "merged", "weights": "stream"}}))
    said = project.run("check", "--fast", expect=2)
    assert "models/bot.yaml:1: serving.weights: vLLM streams from gs:// and s3://" in said
    project.environment["LLM_ASSETS_STORE"] = "s3://models/llm"
    assert "✓" in project.run("check", "--fast")


def test_what_dagster_refuses_is_a_mistake_with_the_innermost_cause(project: Project) -> None:
    """One job over the assets of two models, as the schedule of deployments once had."""
    assets = [dg.AssetSpec(name, partitions_def=tenants_of(name)) for name in ("one", "two")]

    @dg.multi_asset(specs=assets[:1])
    def one() -> None: ...

    @dg.multi_asset(specs=assets[1:])
    def two() -> None: ...

    definitions = dg.Definitions(assets=[one, two], jobs=[dg.define_asset_job("both", selection="*")])
    catalog = load_catalog(project.settings.catalog)
    with (
        pytest.raises(CatalogError, match="same partitions definitions") as refused,
        refusals_explained(catalog),
    ):
        dg.Definitions.validate_loadable(definitions)
    [mistake] = refused.value.mistakes
    assert mistake.file == "catalog"
    assert mistake.problem.startswith("Dagster cannot build the definitions: Selected assets")
