"""The graph of the demo's catalog: its keys and dependencies, and that every asset says what it is."""

from pathlib import Path

import dagster as dg
import pytest

from llm_assets.catalog.loading import load_catalog
from llm_assets.graph import build_definitions
from llm_assets.installation.settings import Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    home = tmp_path_factory.mktemp("home")
    settings = Settings(root=ROOT, catalog=ROOT / "catalog", home=home)
    return build_definitions(settings, load_catalog(settings.catalog))


def test_the_graph_is_the_one_of_the_design(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    found = {
        key.to_user_string(): sorted(parent.to_user_string() for parent in graph.get(key).parent_keys)
        for key in graph.get_all_asset_keys()
    }
    base = "base_models/smollm2_135m_instruct"
    assert found == {
        base: [],
        "gateway/usage": [],
        "support_bot/dataset": [base],
        "support_bot/lora_adapter": [base, "support_bot/dataset"],
        "support_bot/merged_model": [base, "support_bot/lora_adapter"],
        "support_bot/model_card": ["support_bot/merged_model"],
        "support_bot/vllm_deployment": ["support_bot/model_card"],
    }


def test_every_asset_has_an_owner_a_group_kinds_a_code_version_and_a_description(
    definitions: dg.Definitions,
) -> None:
    graph = definitions.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.owners, key
        assert node.group_name == key.path[0]
        assert node.kinds, key
        assert node.code_version, key
        assert len(node.description or "") > 40, key


def test_tenants_are_partitions_of_all_that_is_made_of_their_data(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    partitioned = {
        key.to_user_string()
        for key in graph.get_all_asset_keys()
        if isinstance(graph.get(key).partitions_def, dg.DynamicPartitionsDefinition)
    }
    assert partitioned == {
        f"support_bot/{kind}"
        for kind in ("dataset", "lora_adapter", "merged_model", "model_card", "vllm_deployment")
    }


def test_what_loads_a_model_on_an_accelerator_waits_for_its_slot(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    waiting = {key.to_user_string() for key in graph.get_all_asset_keys() if graph.get(key).pools == {"gpu"}}
    assert waiting == {"support_bot/lora_adapter", "support_bot/merged_model"}


def test_what_a_deployment_depends_on_is_gated_by_blocking_checks(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    blocking = {
        f"{check.asset_key.to_user_string()}:{check.name}"
        for check in graph.asset_check_keys
        if graph.get(check).blocking
    }
    assert blocking == {
        "support_bot/dataset:some_rows_are_held_out",
        "support_bot/lora_adapter:loss_fell",
        "support_bot/lora_adapter:held_out_loss_is_within_the_threshold",
        "support_bot/merged_model:answers_every_known_question",
        "support_bot/merged_model:is_signed_by_a_trusted_key",
        "support_bot/merged_model:merged_answers_as_base_with_adapter",
    }


def test_the_number_of_assets_does_not_depend_on_the_number_of_tenants(
    definitions: dg.Definitions, tmp_path: Path
) -> None:
    import shutil

    catalog = shutil.copytree(ROOT / "catalog", tmp_path / "catalog")
    for number in range(50):
        text = "owner: someone@example.com\nmodels: [support_bot]\n"
        (catalog / "tenants" / f"tenant-{number}.yaml").write_text(text)
    settings = Settings(root=ROOT, catalog=catalog, home=tmp_path)
    larger = build_definitions(settings, load_catalog(catalog))
    assert len(larger.resolve_asset_graph().get_all_asset_keys()) == len(
        definitions.resolve_asset_graph().get_all_asset_keys()
    )
