"""From a version to what is served, its signature checked; and from what is live to the gateway."""

from dataclasses import dataclass
from typing import Any

from llm_assets.catalog.loading import Catalog
from llm_assets.catalog.models import ModelEntry
from llm_assets.installation.settings import Settings
from llm_assets.lineage import check_bound
from llm_assets.made_from import parent_of
from llm_assets.signature_policy import require_signatures, verifier_of
from resources.artifact_store.artifacts import Artifact, ArtifactError
from resources.artifact_store.store import ArtifactStore
from resources.engines.locks import lock_digest
from resources.seams.gateway import Gateway
from resources.seams.serving import WHOLE, Device, Log, Route, Serving


@dataclass(frozen=True, kw_only=True)
class VersionShare:
    """Which version: whose it is, its label, and the digest that it must have; its share, and its names."""

    tenant: str
    model: str
    label: str
    digest: str
    weight: int = WHOLE
    aliases: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        return f"artifact://models/{self.tenant}/{self.model}/{self.label}"


def serving_of(
    catalog: Catalog,
    model: ModelEntry,
    store: ArtifactStore,
    settings: Settings,
    device: Device,
    version: VersionShare,
) -> Serving:
    """What has to be served for a version, as one frozen value. Its files are verified by whoever loads them.

    Raises:
        ArtifactError: The version is gone, or not the one that was registered.
        SignatureError: It is unsigned where the tenant demands signatures, or altered.
    """
    merged = store.get(version.source)
    if merged.digest != version.digest:
        raise ArtifactError(
            f"{version.source} has the digest {merged.digest}, registered was {version.digest}."
        )
    adapter = parent_of(store.get, merged, "adapter")
    served = (merged,) if model.serving.mode == "merged" else (merged, adapter)
    require_signatures(catalog.tenants[version.tenant], verifier_of(settings), store, *served)
    return Serving(
        tenant=version.tenant,
        model=model.name,
        version=version.label,
        digest=version.digest,
        known_answers=tuple(merged.attributes["merge"]["answers"]),
        engine=lock_digest("serve", device),
        device=device,
        weight=version.weight,
        aliases=version.aliases,
        **_weights(model, store, merged, adapter),
        **model.serving.model_dump(exclude={"mode"}),
    )


def _weights(model: ModelEntry, store: ArtifactStore, merged: Artifact, adapter: Artifact) -> dict[str, Any]:
    """Merged weights, or the base model with the adapter that is bound to it."""
    if model.serving.mode == "merged" or adapter.attributes["recipe"].get("finetuning_type") == "full":
        return {"mode": "merged", "model_uri": merged.uri, "model_digest": merged.digest}
    base = parent_of(store.get, merged, "base")
    check_bound(adapter, base)
    return {
        "mode": "adapter",
        "model_uri": base.uri,
        "model_digest": base.digest,
        "adapter_uri": adapter.uri,
        "adapter_digest": adapter.digest,
        "lora_rank": int(adapter.attributes["recipe"].get("lora_rank", 8)),
    }


def publish(gateway: Gateway, route: Route, log: Log) -> None:
    """Returns when the gateway counts the route, or says that no gateway runs.

    Raises:
        GatewayError: A gateway runs and did not take it.
    """
    what = f"the route of {route.tenant}/{route.model}"
    if gateway.publish(route) == "counts":
        log(f"The gateway counts {what}.")
    else:
        log(f"No gateway runs: {what} counts once `llm-assets up` has started one.")
