"""The catalog as one value: every file read and checked, or every mistake at once."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from llm_assets.catalog.base_models import BaseModelEntry
from llm_assets.catalog.experiments import Experiment
from llm_assets.catalog.mistakes import CatalogError, Mistake, did_you_mean, one_of
from llm_assets.catalog.models import ModelEntry
from llm_assets.catalog.reading import Reading
from llm_assets.catalog.recipes import Recipe, check_arguments
from llm_assets.catalog.tenants import TenantEntry


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """Everything that people wrote, by name; experiments by `<tenant>/<model>/<name>`."""

    folder: Path
    base_models: Mapping[str, BaseModelEntry]
    models: Mapping[str, ModelEntry]
    tenants: Mapping[str, TenantEntry]
    experiments: Mapping[str, Experiment]

    def recipe_for(self, tenant: str, model: str, experiment: str | None = None) -> Recipe:
        """What a tenant's training of a model is given.

        Without a named experiment it is the one whose name sorts last, and without any the model's recipe.
        Where the fall of the held-out loss is the model's threshold, it is measured before the training too.

        Raises:
            CatalogError: There is no such tenant, model or experiment.
        """
        self._check_known(tenant, model)
        experiments = self.experiments_of(tenant, model)
        if experiment is None:
            if not experiments:
                return self.recipe_of(model)
            experiment = max(experiments)
        if experiment not in experiments:
            self._refuse(
                f"experiments/{tenant}/{model}", f"there is no experiment {experiment!r}", experiments
            )
        return self._measured(model, experiments[experiment].recipe)

    def recipe_of(self, model: str) -> Recipe:
        """The model's own recipe, which tenants without experiments take."""
        arguments = check_arguments(self.models[model].recipe).arguments
        return self._measured(model, Recipe(arguments=arguments, origin=f"models/{model}.yaml"))

    def _measured(self, model: str, recipe: Recipe) -> Recipe:
        if self.models[model].thresholds.loss != "held_out":
            return recipe
        return replace(recipe, arguments=recipe.arguments | {"eval_on_start": True})

    def experiments_of(self, tenant: str, model: str) -> Mapping[str, Experiment]:
        """By name; none where the tenant takes the model's recipe."""
        return self._by_line.get((tenant, model), {})

    @cached_property
    def _by_line(self) -> Mapping[tuple[str, str], Mapping[str, Experiment]]:
        lines: dict[tuple[str, str], dict[str, Experiment]] = defaultdict(dict)
        for experiment in self.experiments.values():
            lines[experiment.tenant, experiment.model][experiment.name] = experiment
        return dict(lines)

    def _check_known(self, tenant: str, model: str) -> None:
        if model not in self.models:
            self._refuse("models", f"there is no model {model!r}", self.models)
        if tenant not in self.tenants:
            self._refuse("tenants", f"there is no tenant {tenant!r}", self.tenants)
        if model not in self.tenants[tenant].models:
            using = self.tenants[tenant].models
            self._refuse(f"tenants/{tenant}.yaml", f"the tenant does not use the model {model!r}", using)

    def _refuse(self, file: str, problem: str, known: Mapping[str, object] | tuple[str, ...]) -> None:
        word = problem.rpartition(" ")[2].strip("'")
        valid = did_you_mean(word, known, otherwise=one_of(known))
        place = f"{self.folder.name}/{file}"
        mistake = Mistake(file=place, line=None, field="", problem=problem, valid=valid)
        raise CatalogError(self.folder, [mistake])


def load_catalog(folder: Path, *, landing_zones: bool = False) -> Catalog:
    """Read and check a catalog's folder.

    `landing_zones` checks, too, that each of them belongs to somebody. `llm-assets check` does; a run
    does not, because a stray folder in one corner must not stop every tenant.

    Raises:
        CatalogError: Anything in it is wrong; the error holds all mistakes of all files.
    """
    folder = folder.resolve()
    reading = Reading(folder)
    base_models = reading.base_models()
    models = reading.models(base_models)
    tenants = reading.tenants(models)
    experiments = reading.experiments(models, base_models, tenants)
    if landing_zones:
        reading.landing_zones(tenants)
    if reading.mistakes:
        raise CatalogError(folder, reading.mistakes)
    return Catalog(
        folder=folder, base_models=base_models, models=models, tenants=tenants, experiments=experiments
    )
