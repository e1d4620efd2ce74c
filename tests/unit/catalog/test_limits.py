"""What only the fetched base model and the machine's engine tell: file, line, key, before a training."""

from pathlib import Path
from typing import Any

import pytest

from llm_assets.catalog.limits import (
    BaseLimits,
    Machine,
    late_mistakes,
    recipe_beyond,
    short_kv_cache,
    store_mistakes,
)
from llm_assets.catalog.loading import Catalog, load_catalog
from llm_assets.catalog.recipes import Recipe
from tests.unit.catalog.test_recipe_cases import BASE, MODEL

BUCKET = "s3://models/llm"
CPU = Machine(device="cpu", store_url=BUCKET)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    written = {
        "base_models/smollm2.yaml": BASE.replace("context_length: 8192\n", ""),
        "models/bot.yaml": MODEL.format(mode="merged") + "  cutoff_len: 4096\n",
        "tenants/team-a.yaml": "owner: a@example.com\nmodels: [bot]\n",
        "experiments/team-a/bot/1.yaml": "lora_rank: 8\ncutoff_len: 4096\n",
        "experiments/team-a/bot/2.yaml": "top.finetuning_type: lora\n\ntrain.cutoff_len: 4096\n",
    }
    for file, text in written.items():
        path = tmp_path / "catalog" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return load_catalog(tmp_path / "catalog")


@pytest.mark.parametrize(
    ("experiment", "place"),
    [
        (None, "catalog/models/bot.yaml:9: recipe.cutoff_len"),
        ("1", "catalog/experiments/team-a/bot/1.yaml:2: cutoff_len"),
        ("2", "catalog/experiments/team-a/bot/2.yaml:3: train.cutoff_len"),
    ],
)
def test_a_length_beyond_the_fetched_base_model_is_refused_where_it_was_written(
    catalog: Catalog, experiment: str | None, place: str
) -> None:
    if experiment is None:
        for path in (catalog.folder / "experiments" / "team-a" / "bot").iterdir():
            path.unlink()
        catalog = load_catalog(catalog.folder)
    recipe = catalog.recipe_for("team-a", "bot", experiment)
    model = catalog.models["bot"]
    mistakes = late_mistakes(
        catalog.folder, model, recipe, limits=BaseLimits(context_length=1024), machine=CPU
    )
    assert sorted(map(str, mistakes)) == sorted(
        [
            f"{place}: 4096 tokens, but smollm2 has positions for 1024; at most 1024",
            "catalog/models/bot.yaml:7: serving.max_model_len: 2048 tokens, but smollm2 has positions for "
            "1024; at most 1024",
        ]
    )
    assert (
        late_mistakes(catalog.folder, model, recipe, limits=BaseLimits(context_length=4096), machine=CPU)
        == []
    )
    assert late_mistakes(catalog.folder, model, recipe, limits=BaseLimits(), machine=CPU) == []


@pytest.mark.parametrize(
    ("recipe", "merge", "model_type", "expected"),
    [
        ({"additional_target": "embed_tokens,lm_head"}, "stream", "llama", {}),
        ({"lora_target": ["q_proj", "lm_head"]}, "stream", "llama", {}),
        ({"lora_target": "q_proj, lm_head"}, "export", "llama", {"lora_target": "merge: stream"}),
        ({"lora_target": "lm_head", "add_tokens": "[a]"}, "stream", "llama", {"lora_target": "no resized"}),
        ({"lora_target": "q_proj"}, "export", "gemma2", {}),
        ({"additional_target": "lm_head"}, "stream", "gemma2", {"additional_target": "untied ones"}),
        ({"lora_target": "lm_head"}, "stream", "gemma2", {"lora_target": "untied ones"}),
        ({"resize_vocab": True}, "stream", "gemma2", {"resize_vocab": "untied ones"}),
        ({"additional_target": "norm"}, "stream", "gemma2", {}),
        ({"additional_target": "lm_head"}, "stream", None, {}),
    ],
)
def test_tied_embeddings_are_trained_apart_only_where_they_can_be_merged_and_served_so(
    catalog: Catalog, recipe: dict[str, Any], merge: str, model_type: str | None, expected: dict[str, str]
) -> None:
    model = catalog.models["bot"].model_copy(update={"merge": merge})
    limits = BaseLimits(tied_embeddings=True, model_type=model_type)
    found = {str(each.place[0]): each.valid for each in recipe_beyond(recipe, model, limits)}
    assert found.keys() == expected.keys()
    assert all(valid in found[key] for key, valid in expected.items())
    untied = BaseLimits(tied_embeddings=False, model_type=model_type)
    assert list(recipe_beyond(recipe, model, untied)) == []


@pytest.mark.parametrize(
    ("lora_target", "mode", "model_type", "refused"),
    [
        ("q_proj,lm_head", "adapter", "qwen2", True),
        (["embed_tokens"], "adapter", "mistral", True),
        ("q_proj,lm_head", "merged", "qwen2", False),
        ("q_proj,lm_head", "adapter", "qwen3", False),
        ("all", "adapter", "qwen2", False),
        ("q_proj,lm_head", "adapter", None, False),
    ],
)
def test_an_adapter_with_lora_on_embeddings_is_refused_of_models_whose_vllm_loads_none(
    catalog: Catalog, lora_target: Any, mode: str, model_type: str | None, refused: bool
) -> None:
    written = catalog.models["bot"]
    model = written.model_copy(update={"serving": written.serving.model_copy(update={"mode": mode})})
    limits = BaseLimits(tied_embeddings=False, model_type=model_type)
    found = [str(each.problem) for each in recipe_beyond({"lora_target": lora_target}, model, limits)]
    said = f"vLLM loads no adapter of a {model_type} model with LoRA on its embeddings"
    assert found == ([said] if refused else [])


@pytest.mark.parametrize(
    ("serving", "facts", "expected"),
    [
        ({"kv_cache_mib": 17}, {}, None),
        ({"kv_cache_mib": 16}, {}, 17),
        ({"kv_cache_mib": 16, "max_model_len": 1920}, {}, None),
        ({"kv_cache_mib": 33, "dtype": "float32"}, {}, 34),
        ({"kv_cache_mib": 33, "dtype": "auto"}, {"dtype": "float32"}, 34),
        ({"kv_cache_mib": 17, "dtype": "auto"}, {"dtype": "bfloat16"}, None),
        ({"kv_cache_mib": 16, "mode": "none"}, {}, None),
        ({"kv_cache_mib": 16}, {"kv_cache_values_per_token": None}, None),
    ],
)
def test_a_kv_cache_that_holds_no_whole_request_is_refused_with_the_least_that_does(
    catalog: Catalog, serving: dict[str, Any], facts: dict[str, Any], expected: int | None
) -> None:
    written = catalog.models["bot"]
    model = written.model_copy(update={"serving": written.serving.model_copy(update=serving)})
    limits = BaseLimits(**{"kv_cache_values_per_token": 4096, **facts})
    said = [each.valid for each in short_kv_cache(model, limits)]
    assert said == ([f"at least {expected}, or a smaller serving.max_model_len"] if expected else [])


def test_only_a_cpu_has_a_kv_cache_of_a_fixed_size(catalog: Catalog) -> None:
    recipe = catalog.recipe_for("team-a", "bot", "1")
    limits = BaseLimits(kv_cache_values_per_token=10**6)
    model = catalog.models["bot"]
    [mistake] = late_mistakes(catalog.folder, model, recipe, limits=limits, machine=CPU)
    assert mistake.field == "serving.kv_cache_mib"
    assert (
        late_mistakes(
            catalog.folder, model, recipe, limits=limits, machine=Machine(device="cuda", store_url=BUCKET)
        )
        == []
    )


@pytest.mark.parametrize(
    ("store_url", "mode", "refused"),
    [
        ("file:/srv/store", "merged", True),
        ("file:/srv/store", "adapter", True),
        ("artifactory+https://repository/llm", "merged", True),
        ("file:/srv/store", "none", False),
        ("s3://models/llm", "merged", False),
        ("gs://models/llm", "adapter", False),
    ],
)
def test_weights_are_streamed_from_a_bucket_alone_and_that_is_said_before_a_training(
    catalog: Catalog, store_url: str, mode: str, refused: bool
) -> None:
    file = catalog.folder / "models" / "bot.yaml"
    file.write_text(file.read_text().replace("{mode: merged}", f"{{mode: {mode}, weights: stream}}"))
    model = load_catalog(catalog.folder).models["bot"]
    said = [str(each) for each in store_mistakes(catalog.folder, [model], store_url)]
    expected = (
        "catalog/models/bot.yaml:7: serving.weights: vLLM streams from gs:// and s3://, and this "
        f"installation's artifacts lie in {store_url}; disk, or LLM_ASSETS_STORE with such an address"
    )
    assert said == ([expected] if refused else [])
    recipe = Recipe(arguments={}, origin="models/bot.yaml")
    here = Machine(device="cpu", store_url=store_url)
    late = late_mistakes(catalog.folder, model, recipe, limits=BaseLimits(), machine=here)
    assert [str(each) for each in late] == said
    on_disk = model.model_copy(update={"serving": model.serving.model_copy(update={"weights": "disk"})})
    assert store_mistakes(catalog.folder, [on_disk], store_url) == []
