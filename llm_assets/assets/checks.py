"""A check reads the manifest of the artifact that was just materialized and says whether a rule holds."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import dagster as dg

from llm_assets.assets.parameters import read_once
from llm_assets.catalog.models import ModelEntry
from llm_assets.keys import model_key
from llm_assets.lineage import materialized_for
from llm_assets.partitions import tenants_of
from resources.artifact_store.artifacts import Artifact
from resources.artifact_store.store import ArtifactStore

# Partitioned checks are a preview in Dagster 1.13; without them a check of one tenant would block another.
warnings.filterwarnings("ignore", message="Specifying a partitions_def on an AssetCheckSpec")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a rule found: does it hold, why, and the figures behind it."""

    holds: bool
    why: str
    figures: Mapping[str, float | int | str] = field(default_factory=dict)


Rule = Callable[[Artifact], Verdict]


def artifact_check(model: ModelEntry, kind: str, rule: Rule, *, blocking: bool) -> dg.AssetChecksDefinition:
    """The check named after `rule`, a partition a tenant; a blocking one stops what comes after."""
    key = model_key(model.name, kind)

    @dg.asset_check(
        asset=key,
        name=rule.__name__,
        description=rule.__doc__,
        blocking=blocking,
        partitions_def=tenants_of(model.name),
    )
    @read_once
    def _check(context: dg.AssetCheckExecutionContext, artifact_store: ArtifactStore) -> dg.AssetCheckResult:
        verdict = rule(materialized_for(context, artifact_store, key, context.partition_key))
        return dg.AssetCheckResult(
            passed=verdict.holds,
            severity=dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN,
            description=verdict.why,
            metadata={f"llm/{name}": value for name, value in verdict.figures.items()},
        )

    return _check
