"""How a model's file and a recipe go with what the base model has positions for.

The catalog may state a base model's `context_length`; what it leaves out is known once the base model is
fetched, and judged then: `late_mistakes` gives it file, line and key, before a training starts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from llm_assets.catalog.engine_packages import lacking, packages
from llm_assets.catalog.mistakes import Mistake, Place, Problem, dotted
from llm_assets.catalog.models import ModelEntry
from llm_assets.catalog.recipes import Recipe
from llm_assets.catalog.web_ui import is_web_ui_form, translate
from llm_assets.catalog.yaml_files import read_yaml
from resources.engines.locks import Device


def serving_beyond(model: ModelEntry, context_length: int | None) -> Iterator[Problem]:
    """What the model's file asks of vLLM that the base model cannot give."""
    wanted = model.serving.max_model_len
    if context_length is not None and model.serving.mode != "none" and wanted > context_length:
        problem = f"{wanted} tokens, but {model.base_model} has positions for {context_length}"
        valid = f"at most {context_length}"
        yield Problem(place=("serving", "max_model_len"), problem=problem, valid=valid)


def recipe_beyond(
    recipe: Mapping[str, Any], base_model: str, context_length: int | None, place: Place = ()
) -> Iterator[Problem]:
    """What a recipe asks of the base model that it cannot give. Only what is written counts, no default."""
    wanted = recipe.get("cutoff_len", 0)
    if context_length is not None and wanted > context_length:
        problem = f"{wanted} tokens, but {base_model} has positions for {context_length}"
        yield Problem(place=(*place, "cutoff_len"), problem=problem, valid=f"at most {context_length}")


def late_mistakes(
    folder: Path, model: ModelEntry, recipe: Recipe, *, context_length: int | None, device: Device
) -> list[Mistake]:
    """What only the fetched base model and the engine of this machine tell, with file and line.

    Args:
        folder: The catalog's folder; the files are read again, for the lines.
        device: Whose train engine the recipe is for.
    """
    lacks = lacking(recipe.arguments, packages(device), where=f"the train engine's locks for {device}")
    of_recipe = [*recipe_beyond(recipe.arguments, model.base_model, context_length), *lacks]
    if recipe.is_the_models:
        of_recipe = [replace(each, place=("recipe", *each.place)) for each in of_recipe]
    found = {f"models/{model.name}.yaml": [*serving_beyond(model, context_length)]}
    found.setdefault(recipe.origin, []).extend(of_recipe)
    return [each for file, problems in found.items() if problems for each in _placed(folder, file, problems)]


def _placed(folder: Path, file: str, problems: list[Problem]) -> Iterator[Mistake]:
    document = read_yaml(folder / file)
    controls = translate(document.value).controls if is_web_ui_form(document.value) else {}
    for each in problems:
        place = (controls.get(str(each.place[0]), each.place[0]), *each.place[1:])
        yield Mistake(
            file=f"{folder.name}/{file}",
            line=document.line(place),
            field=dotted(place),
            problem=each.problem,
            valid=each.valid,
        )
