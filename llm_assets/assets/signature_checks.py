"""`is_signed_by_a_trusted_key`: the check that stops an unsigned or altered merged model before its card."""

import dagster as dg

from llm_assets.catalog.loading import Catalog
from llm_assets.catalog.models import ModelEntry
from llm_assets.keys import MERGED_MODEL, model_key
from llm_assets.lineage import materialized
from llm_assets.partitions import tenants_of
from llm_assets.settings import Settings
from llm_assets.signature_policy import bundle_of, verifier_of
from resources.artifact_store import ArtifactStore
from resources.signatures import SignatureError, UnsignedError


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
    def _check(
        context: dg.AssetCheckExecutionContext,
        artifact_store: ArtifactStore,
        settings: dg.ResourceParam[Settings],
    ) -> dg.AssetCheckResult:
        demanded = catalog.tenants[context.partition_key].signatures == "required"
        merged = materialized(context.instance, artifact_store, key, context.partition_key)
        try:
            signed = verifier_of(settings).verify(merged, bundle_of(artifact_store, merged))
        except SignatureError as error:
            blocks = demanded or not isinstance(error, UnsignedError)
            severity = dg.AssetCheckSeverity.ERROR if blocks else dg.AssetCheckSeverity.WARN
            return dg.AssetCheckResult(passed=False, severity=severity, description=str(error))
        return dg.AssetCheckResult(
            passed=True,
            description=f"Signed by {signed.signer}, {signed.at}.",
            metadata={"llm/signed_by": signed.signer, "llm/signed_at": signed.at},
        )

    return _check
