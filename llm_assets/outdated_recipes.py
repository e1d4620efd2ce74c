"""Whose adapter was trained by another recipe than the model's file has now?

A recipe is shared by all tenants of its model, so a changed one concerns all of them at once. Only tenants
without experiments of their own count: those have a recipe of their own, which `experiments` watches.
Adapters from before their recipe was noted on them are not known to be outdated and do not count.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from llm_assets.catalog.loading import Catalog
from llm_assets.catalog.recipes import Recipe
from llm_assets.keys import LORA_ADAPTER, model_key
from llm_assets.lineage import names_its_own
from llm_assets.partitions import tenants_using
from resources.artifact_store.artifacts import fingerprint_of

RECIPE_TAG = "llm_assets/recipe"
TAG_CHARACTERS = 32
TENANTS_NAMED = 5
PAGE = 500  # materializations read at once


@dataclass(frozen=True, kw_only=True)
class Outdated:
    """Whose adapters have another recipe than `recipe`, out of `trained` tenants.

    `tenants` are in the order of their names, each with the number of its adapter's materialization.
    """

    model: str
    recipe: str
    tenants: Mapping[str, int]
    trained: int

    def __str__(self) -> str:
        more = len(self.tenants) - TENANTS_NAMED
        named = ", ".join([*self.tenants][:TENANTS_NAMED]) + (f" and {more} more" if more > 0 else "")
        return (
            f"The recipe of {self.model} has changed since {len(self.tenants)} of its {self.trained} trained "
            f"tenants were trained ({named}): llm-assets run {self.model} --all-tenants"
        )


def recipe_tag(recipe: Recipe) -> str:
    """What tells recipes apart on a materialization; a tag has at most 63 characters."""
    return fingerprint_of(recipe=recipe.arguments).removeprefix("sha256:")[:TAG_CHARACTERS]


def outdated_recipes(instance: dg.DagsterInstance, catalog: Catalog) -> Iterator[Outdated]:
    """One for each model that has tenants with another recipe."""
    for model in catalog.models:
        if (found := outdated_recipe(instance, catalog, model)).tenants:
            yield found


def outdated_recipe(instance: dg.DagsterInstance, catalog: Catalog, model: str) -> Outdated:
    """Reads the newest materialization of each tenant without an experiment, a page of them at a time."""
    own = [name for name in tenants_using(catalog, model) if not catalog.experiments_of(name, model)]
    known = _recipes(instance, model_key(model, LORA_ADAPTER), own)
    now = recipe_tag(catalog.recipe_of(model))
    return Outdated(
        model=model,
        recipe=now,
        tenants={tenant: number for tenant, (number, tag) in sorted(known.items()) if tag != now},
        trained=len(known),
    )


def _recipes(
    instance: dg.DagsterInstance, key: dg.AssetKey, tenants: Sequence[str]
) -> dict[str, tuple[int, str]]:
    """The number and the recipe of each tenant's newest adapter that has one noted on it."""
    newest = instance.event_log_storage.get_latest_storage_id_by_partition(
        key, dg.DagsterEventType.ASSET_MATERIALIZATION, set(tenants)
    )
    numbers, found = sorted(newest.values()), {}
    for start in range(0, len(numbers), PAGE):
        page = numbers[start : start + PAGE]
        records = instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=key, storage_ids=page), limit=len(page)
        ).records
        for record in records:
            made = record.asset_materialization
            if not made or not made.partition or not names_its_own(made, made.partition):
                continue
            if tag := (made.tags or {}).get(RECIPE_TAG):
                found[made.partition] = (record.storage_id, tag)
    return found
