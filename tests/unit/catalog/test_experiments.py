"""Both files that LLaMA-Factory's web UI saves, as its version 0.9.5 wrote them."""

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_assets.catalog.base_models import BaseModelEntry
from llm_assets.catalog.experiments import read_recipe
from llm_assets.catalog.recipes import UNSUPPORTED, Recipe
from llm_assets.catalog.web_ui import translate
from llm_assets.catalog.yaml_files import read_yaml

HERE = Path(__file__).parent
WEB_UI_FORM = read_yaml(BytesIO((HERE / "llamaboard_config.yaml").read_bytes())).value
PLAIN_FORM = read_yaml(BytesIO((HERE / "training_args.yaml").read_bytes())).value
SMOLLM2 = BaseModelEntry(
    name="smollm2",
    source="hf://HuggingFaceTB/SmolLM2-135M-Instruct@12fd25f77366fa6b3b4b768ec3050bf629380bac",
    licence="apache-2.0",
    template="smollm2",
    owner="team:platform",
    description="A small model.",
    context_length=8192,
    tied_embeddings=True,
)


def read(written: dict[str, Any]) -> tuple[Recipe, list[tuple[str, str]]]:
    recipe, problems = read_recipe(written, "experiments/a/m/run.yaml", model=None, base=SMOLLM2)
    return recipe, [(str(problem.place[0]), f"{problem.problem}; {problem.valid}") for problem in problems]


def test_the_plain_form_is_taken_and_says_what_was_replaced() -> None:
    recipe, problems = read(PLAIN_FORM)
    assert problems == []
    assert recipe.replaced == (
        "dataset",
        "dataset_dir",
        "model_name_or_path",
        "output_dir",
        "template",
        "trust_remote_code",
        "val_size",
    )
    assert recipe.arguments["learning_rate"] == 0.001
    assert recipe.arguments["eval_strategy"] == "steps"
    assert not set(recipe.replaced) & set(recipe.arguments)


def test_the_web_uis_own_form_gives_the_same_training() -> None:
    recipe, problems = read(WEB_UI_FORM)
    assert problems == []
    assert recipe.replaced == (
        "top.model_name",
        "top.template",
        "train.dataset",
        "train.dataset_dir",
        "train.val_size",
        "trust_remote_code",
    )
    assert recipe.stage == "sft"
    assert recipe.arguments | {"learning_rate": 0.001} == recipe.arguments
    expected = {
        "lora_rank": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.05,
        "lora_target": "q_proj,v_proj",
        "use_rslora": True,
        "bf16": False,
        "num_train_epochs": 3.0,
        "max_samples": 100000,
        "eval_strategy": "steps",
        "eval_steps": 100,
        "per_device_eval_batch_size": 4,
        "optim": "adamw_torch",
    }
    assert {key: recipe.arguments[key] for key in expected} == expected


def test_the_base_models_own_template_is_not_said_to_be_replaced() -> None:
    recipe, _ = read({**WEB_UI_FORM, "top.template": "smollm2"})
    assert "top.template" not in recipe.replaced


def test_a_mistake_in_the_form_is_named_by_the_forms_own_setting() -> None:
    spoiled = {**WEB_UI_FORM, "train.learning_rate": "fast", "train.extra_args": "{", "train.lora_rnak": 8}
    _, problems = read(spoiled)
    assert [place for place, _ in problems] == ["train.lora_rnak", "train.extra_args", "train.learning_rate"]
    assert "did you mean train.lora_rank?" in problems[0][1]


def test_ppo_is_said_to_be_unsupported() -> None:
    _, problems = read({**WEB_UI_FORM, "train.training_stage": "PPO"})
    said = f"'ppo' is not supported: {UNSUPPORTED['ppo']}; one of dpo, kto, pt, rm, sft"
    assert problems == [("train.training_stage", said)]


def test_settings_of_an_evaluation_are_no_experiment() -> None:
    _, problems = read({"top.model_name": "x", "eval.dataset": ["identity"]})
    assert problems[0][0] == "eval.dataset"
    assert "an experiment is a training" in problems[0][1]


def test_an_earlier_checkpoint_and_deepspeeds_file_are_replaced() -> None:
    recipe, problems = read({**WEB_UI_FORM, "top.checkpoint_path": ["train_1"], "train.ds_stage": "3"})
    assert problems == []
    assert {"top.checkpoint_path", "train.ds_stage"} <= set(recipe.replaced)
    assert "deepspeed" not in recipe.arguments


def test_a_secret_in_an_experiment_is_dropped_and_never_shown() -> None:
    recipe, problems = read({**PLAIN_FORM, "hf_hub_token": "hf_secret", "swanlab_api_key": "s3cret"})
    assert problems == []
    assert {"hf_hub_token", "swanlab_api_key"} <= set(recipe.replaced)
    assert "secret" not in repr(recipe.arguments)


def test_the_order_of_keys_does_not_change_the_recipe() -> None:
    backwards = dict(reversed(PLAIN_FORM.items()))
    assert list(read(PLAIN_FORM)[0].arguments.items()) == list(read(backwards)[0].arguments.items())


@pytest.mark.parametrize("missing", sorted(WEB_UI_FORM))
def test_a_setting_that_is_missing_has_the_web_uis_initial_value(missing: str) -> None:
    written = {key: value for key, value in WEB_UI_FORM.items() if key != missing}
    assert translate(written).problems == ()


ANYTHING = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text(), max_size=2)
)


@given(form=st.dictionaries(st.sampled_from(sorted(WEB_UI_FORM)), ANYTHING))
def test_no_setting_of_the_form_makes_the_reader_fail(form: dict[str, Any]) -> None:
    recipe, problems = read({**WEB_UI_FORM, **form})
    assert recipe.arguments or problems
