"""`is_signed_by_a_trusted_key`: the check that stops an unsigned or altered merged model before its card."""

import dagster as dg

from llm_assets.assets.parameters import read_once
from llm_assets.catalog.loading import Catalog
from llm_assets.catalog.models import ModelEntry
from llm_assets.catalog.tenants import TenantEntry
from llm_assets.installation.settings import Settings
from llm_assets.keys import MERGED_MODEL, model_key
from llm_assets.lineage import materialized_for
from llm_assets.partitions import tenants_of
from llm_assets.signature_policy import bundle_of, verifier_of
from resources.artifact_store.artifacts import Artifact
from resources.artifact_store.store import ArtifactStore
from resources.signing.signatures import SignatureError, UnsignedError, Verifier


def signature_check(catalog: Catalog, model: ModelEntry) -> dg.AssetChecksDefinition:
    """The check of one model's merged models, a partition a tenant."""
    key = model_key(model.name, MERGED_MODEL)

    @dg.asset_check(
        asset=key,
        name="is_signed_by_a_trusted_key",
        description="Its signature covers these files, this address and this manifest, and is of a key that "
        "is trusted here. Blocks what was altered, and what is unsigned where the tenant demands signatures.",
        blocking=True,
        partitions_def=tenants_of(model.name),
    )
    @read_once
    def _check(
        context: dg.AssetCheckExecutionContext,
        artifact_store: ArtifactStore,
        settings: dg.ResourceParam[Settings],
    ) -> dg.AssetCheckResult:
        merged = materialized_for(context, artifact_store, key, context.partition_key)
        tenant, bundle = catalog.tenants[context.partition_key], bundle_of(artifact_store, merged)
        return signature_result(tenant, verifier_of(settings), merged, bundle)

    return _check


def signature_result(
    tenant: TenantEntry, verifier: Verifier, artifact: Artifact, bundle: bytes | None
) -> dg.AssetCheckResult:
    """An unsigned model of a tenant that demands no signatures is a warning; everything else blocks."""
    try:
        signed = verifier.verify(artifact, bundle)
    except SignatureError as error:
        blocks = tenant.signatures == "required" or not isinstance(error, UnsignedError)
        severity = dg.AssetCheckSeverity.ERROR if blocks else dg.AssetCheckSeverity.WARN
        return dg.AssetCheckResult(passed=False, severity=severity, description=str(error))
    return dg.AssetCheckResult(
        passed=True,
        description=f"Signed by {signed.signer}, {signed.at}.",
        metadata={"llm/signed_by": signed.signer, "llm/signed_at": signed.at},
    )
