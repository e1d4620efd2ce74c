"""`experiments/<tenant>/<model>/<run>.yaml`: one tenant's complete recipe, in either form of the web UI.

`training_args.yaml` holds plain arguments, `llamaboard_config.yaml` the settings of the form; which one a
file is shows in its keys, not in its name.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from llm_assets.catalog.base_models import BaseModelEntry
from llm_assets.catalog.limits import BaseLimits, recipe_beyond
from llm_assets.catalog.mistakes import Place, Problem
from llm_assets.catalog.models import ModelEntry, misfits
from llm_assets.catalog.recipes import Recipe, check_arguments
from llm_assets.catalog.web_ui import Translated, is_web_ui_form, translate


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One tenant's recipe for one model. `replaced` names the keys that the platform sets in their place."""

    tenant: str
    model: str
    name: str
    recipe: Recipe

    @property
    def replaced(self) -> tuple[str, ...]:
        return self.recipe.replaced


def read_recipe(
    written: Mapping[str, object], origin: str, *, model: ModelEntry | None, base: BaseModelEntry | None
) -> tuple[Recipe, list[Problem]]:
    """What an experiment's file says, and what is wrong with it.

    Args:
        written: The file's content.
        origin: The file, below the catalog's folder.
        model: The model it is for, or None where its own file is wrong.
        base: That model's base model, if it is known.
    """
    form = Translated(arguments=dict(written), controls={}, problems=())
    if is_web_ui_form(written):
        form = translate(written)
    held_out = model is None or model.dataset.held_out_fraction > 0
    template = base.template if base else None
    checked = check_arguments(form.arguments, template=template, held_out=held_out)
    problems = [*checked.problems, *(misfits(model, checked.arguments) if model else ())]
    if model and base:
        problems += recipe_beyond(checked.arguments, model, BaseLimits.declared(base))
    replaced = sorted({form.controls.get(key, key) for key in checked.platforms})
    recipe = Recipe(arguments=checked.arguments, origin=origin, replaced=tuple(replaced))
    return recipe, [*form.problems, *_distinct(problems, form.controls)]


def _distinct(problems: list[Problem], controls: Mapping[str, str]) -> list[Problem]:
    """The problems at the fields of the file; one control that sets two arguments is named once."""
    at_controls: dict[tuple[Place, str], Problem] = {}
    for problem in problems:
        key = str(problem.place[0])
        place = (controls.get(key, key), *problem.place[1:])
        at_controls.setdefault(
            (place, problem.problem), Problem(place=place, problem=problem.problem, valid=problem.valid)
        )
    return list(at_controls.values())
