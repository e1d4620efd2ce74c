"""`<model>/vllm_deployment`: a live vLLM server of a tenant's production version."""

from typing import Any

import dagster as dg

from llm_assets.catalog.loading import Catalog
from llm_assets.catalog.models import ModelEntry
from llm_assets.keys import MODEL_CARD, VLLM_DEPLOYMENT, model_key
from llm_assets.line_lock import line_lock
from llm_assets.lineage import check_bound
from llm_assets.partitions import tenants_of
from llm_assets.promotion_rules import promotion_check, rules_of
from llm_assets.settings import Settings
from llm_assets.signature_policy import require_signatures, verifier_of
from resources.artifact_store import ArtifactStore
from resources.artifacts import Artifact, ArtifactError
from resources.engines import installed_engine
from resources.mlflow import MlflowRegistry, RegisteredVersion, RegistryError
from resources.mlflow_server import MlflowServer
from resources.serving import Endpoint, LocalServing, Serving

AUTOMATIC_WHO = "llm-assets"
AUTOMATIC_WHY = "promotion: automatic, and every blocking check of the chain passed"


class DeploymentConfig(dg.Config):
    """`promote_candidate`: false serves what production points to, whatever the model's promotion policy."""

    promote_candidate: bool = True


def vllm_deployment(catalog: Catalog, model: ModelEntry) -> dg.AssetsDefinition:
    """The asset of one model's deployments, a partition a tenant."""

    @dg.asset(
        key=model_key(model.name, VLLM_DEPLOYMENT),
        deps=[model_key(model.name, MODEL_CARD)],
        partitions_def=tenants_of(model.name),
        group_name=model.name,
        kinds={"vllm", "openai"},
        owners=[model.owner],
        code_version="1",
        description="A live, OpenAI-compatible vLLM server of the version that `production` points to, "
        "for one tenant alone. It is live once it has answered the known questions as the merged model did "
        "offline; the one before serves until then.",
    )
    def _vllm_deployment(
        context: dg.AssetExecutionContext,
        config: DeploymentConfig,
        artifact_store: ArtifactStore,
        registry: MlflowRegistry,
        mlflow_server: dg.ResourceParam[MlflowServer],
        serving: LocalServing,
        settings: dg.ResourceParam[Settings],
    ) -> dg.MaterializeResult[None]:
        tenant = context.partition_key
        mlflow_server.ensure_ready()
        with line_lock(settings.locks, tenant, model.name, VLLM_DEPLOYMENT, log=context.log.info):
            if model.promotion == "automatic" and config.promote_candidate:
                rules = rules_of(catalog, settings, artifact_store, tenant, model.name)
                check = promotion_check(rules, why=AUTOMATIC_WHY, warn=context.log.warning)
                registry.promote_candidate(
                    tenant, model.name, who=AUTOMATIC_WHO, why=AUTOMATIC_WHY, check=check
                )
            version = _production(registry, tenant, model.name)
            wanted = serving_of(catalog, model, artifact_store, settings, version)
            endpoint = serving.deploy(wanted, context.log.info)
        context.log.info(f"{endpoint.address} serves {version.label}")
        return dg.MaterializeResult(data_version=dg.DataVersion(endpoint.digest), metadata=_facts(endpoint))

    return _vllm_deployment


def _production(registry: MlflowRegistry, tenant: str, model: str) -> RegisteredVersion:
    version = registry.production(tenant, model)
    if version is None:
        raise RegistryError(
            f"No version of {model} of {tenant} is in production, so there is nothing to serve. "
            f"`llm-assets promote {model} --tenant {tenant}` promotes the candidate."
        )
    return version


def serving_of(
    catalog: Catalog,
    model: ModelEntry,
    artifact_store: ArtifactStore,
    settings: Settings,
    version: RegisteredVersion,
) -> Serving:
    """What has to be served for a registered version, as one frozen value.

    Raises:
        ArtifactError: The version's files are gone, damaged, or not those that were registered.
        SignatureError: They are unsigned where the tenant demands signatures, or altered.
    """
    merged = artifact_store.verify(artifact_store.get(version.source))
    if merged.digest != version.digest:
        raise ArtifactError(
            f"{version.source} has the digest {merged.digest}, registered was {version.digest}."
        )
    adapter = artifact_store.get(merged.attributes["adapter_uri"])
    served = (merged,) if model.serving.mode == "merged" else (merged, adapter)
    require_signatures(catalog.tenants[version.tenant], verifier_of(settings), artifact_store, *served)
    engine = installed_engine(settings.engines, "serve")
    return Serving(
        tenant=version.tenant,
        model=model.name,
        version=version.label,
        digest=version.digest,
        known_answers=tuple(merged.attributes["merge"]["answers"]),
        device=engine.device,
        engine=engine.lock_digest,
        **_weights(model, artifact_store, merged, adapter),
        **model.serving.model_dump(exclude={"mode"}),
    )


def _weights(
    model: ModelEntry, artifact_store: ArtifactStore, merged: Artifact, adapter: Artifact
) -> dict[str, Any]:
    """Merged weights, or the base model with the adapter that is bound to it."""
    if model.serving.mode == "merged" or adapter.attributes["recipe"].get("finetuning_type") == "full":
        return {"mode": "merged", "model_folder": merged.folder}
    base = artifact_store.get(merged.attributes["base_uri"])
    check_bound(adapter, base)
    return {
        "mode": "adapter",
        "model_folder": artifact_store.verify(base).folder,
        "adapter_folder": artifact_store.verify(adapter).folder,
        "chat_template": adapter.folder / "chat_template.jinja",
        "lora_rank": int(adapter.attributes["recipe"].get("lora_rank", 8)),
    }


def _facts(endpoint: Endpoint) -> dict[str, dg.MetadataValue]:
    return {
        "llm/address": dg.MetadataValue.url(endpoint.address),
        "llm/digest": dg.MetadataValue.text(endpoint.digest),
        "llm/version": dg.MetadataValue.text(endpoint.version),
        "llm/live_since": dg.MetadataValue.timestamp(endpoint.since),
        "dagster/uri": dg.MetadataValue.text(
            f"artifact://models/{endpoint.tenant}/{endpoint.model}/{endpoint.version}"
        ),
    }


def deployment_checks(model: ModelEntry) -> list[dg.AssetChecksDefinition]:
    """What has to be true of a deployment, asked of the live server."""
    key = model_key(model.name, VLLM_DEPLOYMENT)

    @dg.asset_check(
        asset=key,
        name="serves_the_promoted_digest",
        description="The digest in the live server's answers is that of the version in production.",
        partitions_def=tenants_of(model.name),
    )
    def _check(
        context: dg.AssetCheckExecutionContext, serving: LocalServing, registry: MlflowRegistry
    ) -> dg.AssetCheckResult:
        served = serving.served_digest(context.partition_key, model.name)
        promoted = _production(registry, context.partition_key, model.name).digest
        return dg.AssetCheckResult(
            passed=served == promoted,
            description=f"Its answers carry {served[:19]}…; promoted is {promoted[:19]}….",
            metadata={"llm/served_digest": served, "llm/promoted_digest": promoted},
        )

    return [_check]
