"""`<model>/vllm_deployment`: live vLLM servers of production and of the versions that share its traffic."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

import dagster as dg

from llm_assets.assets.parameters import read_once
from llm_assets.assets.turns import step_turn
from llm_assets.catalog.loading import Catalog
from llm_assets.catalog.models import ModelEntry
from llm_assets.gateway.own_keys import gateway_client
from llm_assets.installation.settings import Settings
from llm_assets.keys import MODEL_CARD, VLLM_DEPLOYMENT, model_key
from llm_assets.partitions import tenants_of
from llm_assets.presentation import backends_table, table
from llm_assets.promotion_rules import promotion_check, rules_of
from llm_assets.servings import VersionShare, publish, serving_of
from resources.artifact_store.artifacts import ArtifactError
from resources.artifact_store.store import ArtifactStore
from resources.mlflow.registry import MlflowRegistry, RegisteredVersion
from resources.mlflow.server import Mlflow
from resources.mlflow.traffic import MlflowTraffic, TrafficShare
from resources.seams.gateway import Gateway
from resources.seams.serving import WHOLE, ModelServing, Route, Serving
from resources.seams.state import State
from resources.signing.signatures import SignatureError

CHECKING = "check"
"""The name of the key that the check asks with."""
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
        serving: dg.ResourceParam[ModelServing],
        gateway: dg.ResourceParam[Gateway],
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
            of_version = partial(serving_of, catalog, model, artifact_store, settings, serving.device)
            servings, faults = _servings(of_version, shares)
            log = context.log.info
            route = serving.deploy(servings, publish=partial(publish, gateway, log=log), log=log)
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


def _servings(
    of_version: Callable[[VersionShare], Serving], shares: tuple[TrafficShare, ...]
) -> tuple[tuple[Serving, ...], list[str]]:
    """What can be served, and what cannot although it should. Production can, or it is an error."""
    production, *others = shares
    servings, faults = [of_version(_version(production, WHOLE))], []
    for share in others:
        try:
            servings.append(of_version(_version(share, share.weight)))
        except (ArtifactError, SignatureError) as fault:
            faults.append(f"Version {share.version.label} is not live, production has its requests: {fault}")
    servings[0] = replace(servings[0], weight=WHOLE - sum(each.weight for each in servings[1:]))
    return tuple(servings), faults


def _version(share: TrafficShare, weight: int) -> VersionShare:
    version = share.version
    return VersionShare(
        tenant=version.tenant,
        model=version.model,
        label=version.label,
        digest=version.digest,
        weight=weight,
        aliases=version.aliases,
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
    """What has to be true of a deployment, asked at the gateway."""
    key = model_key(model.name, VLLM_DEPLOYMENT)

    @dg.asset_check(
        asset=key,
        name="serves_the_promoted_digest",
        description="Production and every version that shares its traffic is live with its weight, and the "
        "digest in its answers at the gateway is that of the registered version.",
        partitions_def=tenants_of(model.name),
    )
    @read_once
    def _check(
        context: dg.AssetCheckExecutionContext,
        serving: dg.ResourceParam[ModelServing],
        gateway: dg.ResourceParam[Gateway],
        registry: dg.ResourceParam[MlflowRegistry],
        settings: dg.ResourceParam[Settings],
    ) -> dg.AssetCheckResult:
        tenant = context.partition_key
        if gateway.address_of(tenant) is None:
            return dg.AssetCheckResult(
                passed=False,
                severity=dg.AssetCheckSeverity.WARN,
                description="No gateway runs, so nobody can ask what is live. `llm-assets up` starts it.",
            )
        promoted = {
            share.version.label: (share.weight, share.version.digest)
            for share in MlflowTraffic(registry).shares(tenant, model.name)
        }
        asked = gateway_client(settings, tenant, CHECKING)
        served = {
            backend.version: (backend.weight, asked.digest(f"{model.name}@{backend.version}"))
            for backend in serving.route(tenant, model.name).backends
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
