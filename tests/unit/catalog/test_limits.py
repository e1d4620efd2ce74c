"""What only the fetched base model and the machine's engine tell: file, line, key, before a training."""

from pathlib import Path

import pytest

from llm_assets.catalog.limits import late_mistakes
from llm_assets.catalog.loading import Catalog, load_catalog
from tests.unit.catalog.test_recipe_cases import BASE, MODEL


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
    mistakes = late_mistakes(catalog.folder, model, recipe, context_length=1024, device="cpu")
    assert sorted(map(str, mistakes)) == sorted(
        [
            f"{place}: 4096 tokens, but smollm2 has positions for 1024; at most 1024",
            "catalog/models/bot.yaml:7: serving.max_model_len: 2048 tokens, but smollm2 has positions for "
            "1024; at most 1024",
        ]
    )
    assert late_mistakes(catalog.folder, model, recipe, context_length=4096, device="cpu") == []
    assert late_mistakes(catalog.folder, model, recipe, context_length=None, device="cpu") == []
