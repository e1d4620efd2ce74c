"""From a version to what is served: its files verified and held on this machine, its signature checked."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_assets.catalog.loading import Catalog
from llm_assets.catalog.models import ModelEntry
from llm_assets.installation.settings import Settings
from llm_assets.lineage import check_bound
from llm_assets.made_from import parent_of
from llm_assets.signature_policy import require_signatures, verifier_of
from resources.artifact_store.artifacts import Artifact, ArtifactError
from resources.artifact_store.store import ArtifactStore
from resources.artifact_store.transfer_progress import Log
from resources.engines.installation import installed_engine
from resources.node_cache import Held
from resources.serving.local import Serving


@dataclass(frozen=True, kw_only=True)
class VersionIdentity:
    """Which version: whose it is, its label, and the digest that it must have."""

    tenant: str
    model: str
    label: str
    digest: str

    @property
    def source(self) -> str:
        return f"artifact://models/{self.tenant}/{self.model}/{self.label}"


class Shelf:
    """Artifacts of a store that lie verified on this machine's disk for as long as `held` is open."""

    def __init__(self, store: ArtifactStore, held: ExitStack, log: Log) -> None:
        self.store, self._held, self._log = store, held, log

    def hold(self, artifact: Artifact) -> Held:
        return self._held.enter_context(self.store.hold(artifact, self._log))


def serving_of(
    catalog: Catalog,
    model: ModelEntry,
    shelf: Shelf,
    settings: Settings,
    version: VersionIdentity,
) -> Serving:
    """What has to be served for a version, as one frozen value; its files lie on the shelf.

    Raises:
        ArtifactError: The version's files are gone, damaged, or not those that were registered.
        SignatureError: They are unsigned where the tenant demands signatures, or altered.
    """
    store = shelf.store
    merged = store.get(version.source)
    if merged.digest != version.digest:
        raise ArtifactError(
            f"{version.source} has the digest {merged.digest}, registered was {version.digest}."
        )
    adapter = parent_of(store.get, merged, "adapter")
    served = (merged,) if model.serving.mode == "merged" else (merged, adapter)
    require_signatures(catalog.tenants[version.tenant], verifier_of(settings), store, *served)
    engine = installed_engine(settings.engines, "serve")
    return Serving(
        tenant=version.tenant,
        model=model.name,
        version=version.label,
        digest=version.digest,
        known_answers=tuple(merged.attributes["merge"]["answers"]),
        device=engine.device,
        engine=engine.lock_digest,
        **_weights(model, shelf, merged, adapter),
        **model.serving.model_dump(exclude={"mode", "weights"}),
    )


def _weights(model: ModelEntry, shelf: Shelf, merged: Artifact, adapter: Artifact) -> dict[str, Any]:
    """Merged weights, or the base model with the adapter that is bound to it."""
    if model.serving.mode == "merged" or adapter.attributes["recipe"].get("finetuning_type") == "full":
        location, leases = _location(model, shelf, merged)
        return {"mode": "merged", **location, "leases": leases}
    base = parent_of(shelf.store.get, merged, "base")
    check_bound(adapter, base)
    location, leases = _location(model, shelf, base)
    on_disk = shelf.hold(adapter)
    return {
        "mode": "adapter",
        **location,
        "adapter_folder": on_disk.folder,
        "chat_template": on_disk.folder / "chat_template.jinja",
        "lora_rank": int(adapter.attributes["recipe"].get("lora_rank", 8)),
        "leases": (*leases, on_disk.lease),
    }


def _location(model: ModelEntry, shelf: Shelf, artifact: Artifact) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """Where vLLM loads an artifact from, this node's disk or the store itself, and what keeps it there."""
    if model.serving.weights == "stream":
        return {"model_uri": shelf.store.object_url(artifact), "model_digest": artifact.digest}, ()
    on_disk = shelf.hold(artifact)
    return {"model_folder": on_disk.folder}, (on_disk.lease,)
