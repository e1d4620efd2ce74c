"""`<model>/vllm_deployment`: live vLLM servers of production and of the versions that share its traffic."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import dagster as dg

from llm_assets.assets.parameters import read_once
from llm_assets.assets.turns import step_turn
from llm_assets.catalog.loading import Catalog
from llm_assets.catalog.models import ModelEntry
from llm_assets.installation.settings import Settings
from llm_assets.keys import MODEL_CARD, VLLM_DEPLOYMENT, model_key
from llm_assets.partitions import tenants_of
from llm_assets.presentation import backends_table, table
from llm_assets.promotion_rules import promotion_check, rules_of
from llm_assets.servings import Shelf, VersionIdentity, serving_of
from resources.artifact_store.artifacts import ArtifactError
from resources.artifact_store.store import ArtifactStore
from resources.mlflow.registry import MlflowRegistry, RegisteredVersion
from resources.mlflow.server import Mlflow
from resources.mlflow.traffic import MlflowTraffic, TrafficShare
from resources.seams.state import State
from resources.serving.local import LocalServing, VllmError, Wanted
from resources.serving.routes import WHOLE, Route
from resources.signing.signatures import SignatureError

DIGEST_SHOWN = 19  # "sha256:" and twelve digits
AUTOMATIC_WHO = "llm-assets"
AUTOMATIC_WHY = "promotion: automatic, and every blocking check of the chain passed"


class DeploymentConfig(dg.Config):
    """`promote_candidate`: false serves what production points to, whatever the model's promotion policy."""

    promote_candidate: bool = True


def vllm_deployment(catalog: Catalog, model: ModelEntry) -> dg.AssetsDefinition:
    """The asset of one model's deployments, a partition a tenant."""
    key = model_key(model.name, VLLM_DEPLOYMENT)

    @dg.asset(
        key=key,
        output_required=False,
        deps=[model_key(model.name, MODEL_CARD)],
        partitions_def=tenants_of(model.name),
        group_name=model.name,
        kinds={"vllm", "openai"},
        owners=[model.owner],
        code_version="1",
        description="A live, OpenAI-compatible vLLM server of the version that `production` points to, "
        "for one tenant alone, and one of each version that shares its traffic. A server is live once it has "
        "answered the known questions as the merged model did offline; the one before serves until then. "
        "While nothing was promoted yet there is none: the step succeeds and says which candidate waits.",
    )
    @read_once
    def _vllm_deployment(
        context: dg.AssetExecutionContext,
        config: DeploymentConfig,
        artifact_store: ArtifactStore,
        registry: dg.ResourceParam[MlflowRegistry],
        mlflow_server: dg.ResourceParam[Mlflow],
        serving: LocalServing,
        settings: dg.ResourceParam[Settings],
        state: dg.ResourceParam[State],
    ) -> Iterator[dg.MaterializeResult[None]]:
        tenant = context.partition_key
        mlflow_server.ensure_ready()
        with step_turn(context, state, tenant, model.name, "deploy"):
            if model.promotion == "automatic" and config.promote_candidate:
                rules = rules_of(catalog, settings, artifact_store, tenant, model.name)
                check = promotion_check(rules, why=AUTOMATIC_WHY, warn=context.log.warning)
                registry.promote_candidate(
                    tenant, model.name, who=AUTOMATIC_WHO, why=AUTOMATIC_WHY, check=check
                )
            for each in registry.differences(tenant, model.name):
                context.log.warning(f"{each}. {restores(model.name, tenant)}")
            waiting = _waiting(registry, tenant, model.name)
            if waiting:
                context.log.info(waiting["llm/waiting_candidate"].value)
            shares = MlflowTraffic(registry).shares(tenant, model.name)
            if not shares:
                context.log_event(dg.AssetObservation(key, partition=tenant, metadata=waiting))
                return
            with ExitStack() as held:
                shelf = Shelf(artifact_store, held, context.log.info)
                wanted, faults = _wanted(catalog, model, shelf, settings, shares)
                route = serving.deploy(wanted, context.log.info)
        if faults:
            raise ArtifactError(" ".join(faults))
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(route.production.digest), metadata=_facts(route) | waiting
        )

    return _vllm_deployment


def _waiting(registry: MlflowRegistry, tenant: str, model: str) -> dict[str, dg.MetadataValue]:
    """That a candidate waits for a person, with the command that promotes it; empty where none does."""
    candidate = registry.waiting(tenant, model)
    return {"llm/waiting_candidate": dg.MetadataValue.text(says_waiting(candidate))} if candidate else {}


def restores(model: str, tenant: str) -> str:
    """What to do where MLflow was changed by hand."""
    return (
        "The log counts, and what it says is served. "
        f"`llm-assets history {model} --tenant {tenant} --restore` writes MLflow anew."
    )


def says_waiting(candidate: RegisteredVersion) -> str:
    return (
        f"candidate {candidate.number} ({candidate.label}) is waiting: "
        f"llm-assets promote {candidate.model} --tenant {candidate.tenant}"
    )


def _wanted(
    catalog: Catalog,
    model: ModelEntry,
    shelf: Shelf,
    settings: Settings,
    shares: tuple[TrafficShare, ...],
) -> tuple[tuple[Wanted, ...], list[str]]:
    """What can be served, and what cannot although it should. Production can, or it is an error."""
    production, *others = shares
    served = [serving_of(catalog, model, shelf, settings, identity_of(production.version))]
    aliases = [production.version.aliases]
    weights, faults = [], []
    for share in others:
        try:
            served.append(serving_of(catalog, model, shelf, settings, identity_of(share.version)))
            aliases.append(share.version.aliases)
            weights.append(share.weight)
        except (ArtifactError, SignatureError, VllmError) as fault:
            faults.append(f"Version {share.version.label} is not live, production has its requests: {fault}")
    weights.insert(0, WHOLE - sum(weights))
    wanted = (
        Wanted(serving=each, weight=weight, aliases=names)
        for each, weight, names in zip(served, weights, aliases, strict=True)
    )
    return tuple(wanted), faults


def identity_of(version: RegisteredVersion) -> VersionIdentity:
    return VersionIdentity(
        tenant=version.tenant, model=version.model, label=version.label, digest=version.digest
    )


def _facts(route: Route) -> dict[str, dg.MetadataValue]:
    live = route.production
    return {
        "llm/digest": dg.MetadataValue.text(live.digest),
        "llm/version": dg.MetadataValue.text(live.version),
        "llm/live_since": dg.MetadataValue.timestamp(live.since),
        "llm/backends": backends_table(route.backends),
        "dagster/uri": dg.MetadataValue.text(
            f"artifact://models/{route.tenant}/{route.model}/{live.version}"
        ),
    }


def deployment_checks(model: ModelEntry) -> list[dg.AssetChecksDefinition]:
    """What has to be true of a deployment, asked of the live server."""
    key = model_key(model.name, VLLM_DEPLOYMENT)

    @dg.asset_check(
        asset=key,
        name="serves_the_promoted_digest",
        description="Production and every version that shares its traffic is live with its weight, and the "
        "digest in the answers of its server is that of the registered version.",
        partitions_def=tenants_of(model.name),
    )
    @read_once
    def _check(
        context: dg.AssetCheckExecutionContext,
        serving: LocalServing,
        registry: dg.ResourceParam[MlflowRegistry],
    ) -> dg.AssetCheckResult:
        tenant = context.partition_key
        promoted = {
            share.version.label: (share.weight, share.version.digest)
            for share in MlflowTraffic(registry).shares(tenant, model.name)
        }
        route = serving.route(tenant, model.name)
        served = {
            backend.version: (backend.weight, serving.served_digest(tenant, model.name, backend.version))
            for backend in (route.backends if route else ())
        }
        return dg.AssetCheckResult(
            passed=served == promoted,
            description=f"Live: {_listed(served)}. Promoted: {_listed(promoted)}.",
            metadata={"llm/served": _rows(served), "llm/promoted": _rows(promoted)},
        )

    return [_check]


def _rows(versions: Mapping[str, tuple[int, str]]) -> dg.MetadataValue:
    return table(
        [
            {"version": version, "weight": weight, "digest": digest}
            for version, (weight, digest) in versions.items()
        ]
    )


def _listed(versions: Mapping[str, tuple[int, str]]) -> str:
    each = (
        f"{version} ({digest[:DIGEST_SHOWN]}…) {weight} %" for version, (weight, digest) in versions.items()
    )
    return ", ".join(each) or "nothing"
