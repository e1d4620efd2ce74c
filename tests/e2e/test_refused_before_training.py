"""What only the fetched base model tells of a recipe ends the run before a training starts."""

import pytest

from llm_assets.catalog.loading import load_catalog
from llm_assets.chains import chain_name
from llm_assets.graph import build_definitions
from llm_assets.installation.profiles import profile_of
from llm_assets.keys import DATASET, LORA_ADAPTER, base_model_key, model_key
from llm_assets.runs import dagster_instance, execute_chain, new_run_id
from tests.conftest import MakeProject
from tests.e2e.projects import enter, versions

pytestmark = pytest.mark.engine

MODEL = "support_bot"
KEYS = (base_model_key("tiny"), model_key(MODEL, DATASET), model_key(MODEL, LORA_ADAPTER))


def test_lengths_beyond_the_fetched_base_model_are_named_with_file_line_and_key(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project()
    enter(project, monkeypatch)
    file = project.settings.catalog / "models" / f"{MODEL}.yaml"
    written = file.read_text().replace("cutoff_len: 128", "cutoff_len: 2048")
    file.write_text(written.replace("max_model_len: 256", "max_model_len: 4096"))
    assert "✓" in project.run("check"), "the base model's file does not say how many positions it has"

    lines = file.read_text().splitlines()
    places = {
        key: 1 + next(number for number, line in enumerate(lines) if key in line)
        for key in ("cutoff_len", "max_model_len")
    }
    with dagster_instance(project.settings) as instance:
        definitions = build_definitions(project.settings, load_catalog(project.settings.catalog))
        result = execute_chain(
            instance,
            profile_of(project.settings).state,
            definitions.resolve_job_def(chain_name(MODEL)),
            model=MODEL,
            tenant="team-a",
            tenants=["team-a"],
            run_id=new_run_id(),
            op_config={},
            assets=KEYS,
        )
    [failure] = [event.step_failure_data.error for event in result.all_events if event.is_step_failure]
    assert failure is not None
    said = (failure.cause or failure).message
    assert f"{MODEL}.yaml:{places['cutoff_len']}: recipe.cutoff_len: 2048 tokens, but tiny has" in said
    assert f"{MODEL}.yaml:{places['max_model_len']}: serving.max_model_len: 4096 tokens, but tiny" in said
    assert versions(project, "datasets") != []
    assert versions(project, "adapters") == []
    assert not list(project.settings.work.rglob("checkpoints"))
