"""Recipes and web UI files that once failed late, each as a model's recipe or an experiment, in each mode."""

from collections.abc import Callable
from pathlib import Path

import pytest

from llm_assets.catalog.loading import load_catalog
from llm_assets.catalog.mistakes import CatalogError

CASES = Path(__file__).parent / "cases"
RECIPES = sorted(path.stem for path in CASES.glob("*.yaml") if not path.stem.startswith("webui"))
WEB_UI = sorted(path.stem for path in CASES.glob("webui_*.yaml"))

BASE = """\
source: hf://HuggingFaceTB/SmolLM2-135M-Instruct@12fd25f77366fa6b3b4b768ec3050bf629380bac
licence: apache-2.0
template: smollm2
owner: team:platform
description: A small model.
context_length: 8192
tied_embeddings: true
"""
MODEL = """\
base_model: smollm2
owner: team:support
purpose: Answers questions.
risk_class: limited
risk_reasoning: It talks to people.
known_questions: [Who are you?]
serving: {{mode: {mode}}}
recipe:
"""
RECIPE_STARTS = MODEL.count("\n") + 1  # the line of a recipe's first key
VLLM = "or serving.mode merged in the model's file"
PISSA = f"its adapter is the small difference of two large ones, which vLLM's bfloat16 loses; false, {VLLM}"
ADAPTER = {
    "add_tokens_resize": {
        "add_tokens": "a resized vocabulary trains the embeddings in full, and vLLM loads no such adapter; "
        f"leave it out, {VLLM}",
        "resize_vocab": "a resized vocabulary trains the embeddings in full, and vLLM loads no such adapter; "
        f"leave it out, {VLLM}",
    },
    "additional_target_head_only": {
        "additional_target": f"vLLM loads no adapter with fully trained modules; null, {VLLM}"
    },
    "additional_target_tied": {
        "additional_target": f"vLLM loads no adapter with fully trained modules; null, {VLLM}"
    },
    "galore_full": {"finetuning_type": f"full gives no adapter to serve; lora, {VLLM}"},
    "pissa_convert": {"pissa_init": PISSA},
    "pissa_no_convert": {"pissa_init": PISSA},
    "rank1024": {"lora_rank": f"vLLM serves no adapter of such a rank; at most 512, {VLLM}"},
}
EITHER_MODE = {
    "galore_full": {
        "use_galore": "needs the package galore-torch, which the train engine's locks do not have; "
        "leave it out"
    },
    "gpu_liger_fa2": {
        "enable_liger_kernel": "needs the package liger-kernel, which the train engine's locks do not have; "
        "leave it out",
        "flash_attn": "fa2 needs the package flash-attn, which the train engine's locks do not have; "
        "another flash_attn, or leave it out",
    },
    "old_new_special_tokens": {
        "new_special_tokens": "it has another name since LLaMA-Factory 0.9.3; write add_special_tokens"
    },
    "rope_yarn": {
        "rope_scaling": "not supported: within the base model's positions LLaMA-Factory switches it off, and "
        "beyond them it fails (transformers takes whole numbers of positions alone); leave it out"
    },
    "streaming": {
        "streaming": "not supported: the prepared dataset is a local file, which LLaMA-Factory cannot "
        "stream; leave it out"
    },
    "unsloth": {
        "use_unsloth": "needs the package unsloth, which the train engine's locks do not have; leave it out"
    },
}


def refused(case: str, mode: str) -> dict[str, str]:
    """By key: what is said of a recipe. The vocabulary of a recipe with an unknown key is not judged."""
    late = ADAPTER.get(case, {}) if mode == "adapter" else {}
    if case == "old_new_special_tokens" and mode == "adapter":
        late = {"resize_vocab": ADAPTER["add_tokens_resize"]["resize_vocab"]}
    return EITHER_MODE.get(case, {}) | late


Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(file: str, text: str) -> None:
        path = tmp_path / "catalog" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    write_file("base_models/smollm2.yaml", BASE)
    write_file("models/bot.yaml", MODEL.format(mode="merged") + "  lora_rank: 8\n")
    write_file("tenants/team-a.yaml", "owner: a@example.com\nmodels: [bot]\n")
    return write_file


def mistakes(catalog: Path) -> set[str]:
    try:
        load_catalog(catalog, landing_zones=True)
    except CatalogError as error:
        return {str(mistake) for mistake in error.mistakes}
    return set()


@pytest.mark.parametrize("mode", ["merged", "adapter"])
@pytest.mark.parametrize("case", RECIPES)
def test_a_models_recipe_that_cannot_go_live_is_refused_at_its_line(
    write: Write, tmp_path: Path, case: str, mode: str
) -> None:
    recipe = (CASES / f"{case}.yaml").read_text(encoding="utf-8").splitlines()
    write("models/bot.yaml", MODEL.format(mode=mode) + "".join(f"  {line}\n" for line in recipe))
    keys = [line.partition(":")[0] for line in recipe]
    assert mistakes(tmp_path / "catalog") == {
        f"catalog/models/bot.yaml:{RECIPE_STARTS + keys.index(key)}: recipe.{key}: {said}"
        for key, said in refused(case, mode).items()
    }


@pytest.mark.parametrize("mode", ["merged", "adapter"])
@pytest.mark.parametrize("case", RECIPES)
def test_an_experiment_that_cannot_go_live_is_refused_at_its_line(
    write: Write, tmp_path: Path, case: str, mode: str
) -> None:
    recipe = (CASES / f"{case}.yaml").read_text(encoding="utf-8")
    write("models/bot.yaml", MODEL.format(mode=mode) + "  lora_rank: 8\n")
    write("experiments/team-a/bot/1.yaml", recipe)
    keys = [line.partition(":")[0] for line in recipe.splitlines()]
    assert mistakes(tmp_path / "catalog") == {
        f"catalog/experiments/team-a/bot/1.yaml:{keys.index(key) + 1}: {key}: {said}"
        for key, said in refused(case, mode).items()
    }


@pytest.mark.parametrize("mode", ["merged", "adapter"])
@pytest.mark.parametrize("case", WEB_UI)
def test_a_file_of_the_web_ui_is_taken_as_it_is(write: Write, tmp_path: Path, case: str, mode: str) -> None:
    write("models/bot.yaml", MODEL.format(mode=mode) + "  lora_rank: 8\n")
    write(f"experiments/team-a/bot/{case}.yaml", (CASES / f"{case}.yaml").read_text(encoding="utf-8"))
    assert mistakes(tmp_path / "catalog") == set()
    recipe = load_catalog(tmp_path / "catalog").recipe_for("team-a", "bot")
    assert {"output_dir", "dataset", "model_name_or_path"} <= set(recipe.replaced)
    assert "ddp_timeout" in recipe.without_effect
    assert "ddp_timeout" not in recipe.effective


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "serving: {mode: merged}",
            "serving: {mode: merged, max_model_len: 8193}",
            ":7: serving.max_model_len: 8193",
        ),
        (
            "lora_rank: 8",
            "cutoff_len: 8193",
            ":9: recipe.cutoff_len: 8193 tokens, but smollm2 has positions for 8192",
        ),
    ],
)
def test_more_tokens_than_the_base_model_has_positions_for_are_refused(
    write: Write, tmp_path: Path, old: str, new: str, expected: str
) -> None:
    text = (MODEL.format(mode="merged") + "  lora_rank: 8\n").replace(old, new)
    write("models/bot.yaml", text)
    [mistake] = mistakes(tmp_path / "catalog")
    assert expected in mistake
    assert mistake.endswith("; at most 8192")
    write("models/bot.yaml", text.replace("8193", "8192"))
    assert mistakes(tmp_path / "catalog") == set()
    write("models/bot.yaml", text)
    write("base_models/smollm2.yaml", BASE.replace("context_length: 8192\n", ""))
    assert mistakes(tmp_path / "catalog") == set()


def test_an_experiment_beyond_the_positions_is_refused_by_the_web_uis_own_name(
    write: Write, tmp_path: Path
) -> None:
    write("experiments/team-a/bot/form.yaml", "top.finetuning_type: lora\ntrain.cutoff_len: 9000\n")
    [mistake] = mistakes(tmp_path / "catalog")
    assert mistake.startswith("catalog/experiments/team-a/bot/form.yaml:2: train.cutoff_len: 9000 tokens")
