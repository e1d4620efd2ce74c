"""A changed recipe in a model's file: said, or, where the model's file wants it, run for every tenant.

`retraining: manual` (the default) starts nothing: each tick says which tenants were trained by another
recipe and the command that trains them. `automatic` asks for one run of the chain of each, a hundred at a
tick. Neither looks at base models or engines: their new revisions retrain nobody.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import dagster as dg

from llm_assets.catalog.loading import Catalog
from llm_assets.chains import Chains, run_request
from llm_assets.installation.settings import Settings
from llm_assets.outdated_recipes import Outdated, outdated_recipe, recipe_tag
from llm_assets.sensors.current_catalog import current_catalog
from llm_assets.sensors.watching import Watched, look

INTERVAL_S = 30
RUNS_PER_TICK = 100


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What the sensor remembers: the recipes that it has dealt with, and how far it is with the others.

    Attributes:
        asked_to: Of a model that is being retrained, the tenant that a run was asked for last.
        said: Models that wait for a person.
    """

    watched: Watched = field(default_factory=Watched)
    asked_to: Mapping[str, str] = field(default_factory=dict)
    said: tuple[str, ...] = ()

    @staticmethod
    def from_cursor(cursor: str | None) -> "Memory":
        if not cursor:
            return Memory()
        content = json.loads(cursor)
        watched = Watched(settled=content["settled"], moving=content["moving"])
        return Memory(watched=watched, asked_to=content["asked_to"], said=tuple(content["said"]))

    def to_cursor(self) -> str:
        return json.dumps(
            {
                "settled": dict(self.watched.settled),
                "moving": dict(self.watched.moving),
                "asked_to": dict(self.asked_to),
                "said": list(self.said),
            }
        )


def recipes(settings: Settings, chains: Chains, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    @dg.sensor(
        name="recipes",
        jobs=list(chains.values()),
        minimum_interval_seconds=INTERVAL_S,
        default_status=status,
        description="Says which tenants were trained by another recipe than the model's file has now, or "
        "asks for one run of each tenant's chain where the model's file says `retraining: automatic`.",
    )
    def _sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        catalog, memory = current_catalog(settings), Memory.from_cursor(context.cursor)
        known = {model: recipe_tag(catalog.recipe_of(model)) for model in chains if model in catalog.models}
        watched, at_rest = look(memory.watched, known)
        memory = replace(memory, watched=watched)
        looked_at = {
            model: outdated_recipe(context.instance, catalog, model)
            for model in sorted({*at_rest, *memory.said} & known.keys())
        }
        requests, memory = _decided(catalog, memory, looked_at, at_rest)
        if requests:
            return dg.SensorResult(run_requests=requests, cursor=memory.to_cursor())
        context.update_cursor(memory.to_cursor())
        said = [str(looked_at[model]) for model in memory.said if model in looked_at]
        return dg.SkipReason(" ".join(said) or f"No changed recipe among {len(known)} models.")

    return _sensor


def _decided(
    catalog: Catalog, memory: Memory, looked_at: Mapping[str, Outdated], at_rest: tuple[str, ...]
) -> tuple[list[dg.RunRequest], Memory]:
    requests: list[dg.RunRequest] = []
    settled, asked_to, said = [], dict(memory.asked_to), []
    for model, outdated in looked_at.items():
        if catalog.models[model].retraining == "manual":
            settled.append(model)
            said += [model] if outdated.tenants else []
            continue
        rest = [tenant for tenant in outdated.tenants if tenant > asked_to.get(model, "")]
        batch = rest[: RUNS_PER_TICK - len(requests)]
        requests += _requests(outdated, batch)
        if len(batch) == len(rest):
            settled.append(model)
            asked_to.pop(model, None)
        elif batch:
            asked_to[model] = batch[-1]
    gone = [model for model in at_rest if model not in looked_at]  # no model of the catalog any more
    watched = memory.watched.settle([each for each in (*settled, *gone) if each in memory.watched.moving])
    return requests, Memory(watched=watched, asked_to=asked_to, said=tuple(said))


def _requests(outdated: Outdated, tenants: list[str]) -> Iterator[dg.RunRequest]:
    for tenant in tenants:
        yield run_request(
            tenant,
            outdated.model,
            run_key=f"{tenant}/{outdated.model}@recipe-{outdated.recipe}.{outdated.tenants[tenant]}",
            tags={"llm_assets/because": "the model's recipe changed"},
        )
