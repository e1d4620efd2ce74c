"""A training as a work order: what identifies it, what it needs, what it leaves behind.

The engine is no part of the identity: an upgrade trains nobody anew. What was trained by another engine
says so (`engine_upgrade`), and training it again is asked for.
"""

from dataclasses import dataclass

from llm_assets.catalog.recipes import Recipe
from llm_assets.manifests import AdapterManifest, TrainingResult
from resources.artifact_store.artifacts import Artifact, Line, fingerprint_of
from resources.engines.locks import InstalledEngine
from resources.seams.compute import Needs, Output, WorkOrder

CHECKPOINT_OVERHEAD_BYTES = 256 * 2**20
# Of a 16-bit base model: float32 weights and two optimizer moments in each checkpoint, and one more
# checkpoint than are kept, because the new one is written before the oldest goes. Then the result.
FULL_CHECKPOINT_FACTOR, FULL_RESULT_FACTOR = 6, 2
KEPT_CHECKPOINTS = 2
LORA_FACTOR = 0.2
MERGED_FACTOR = 1.2


@dataclass(frozen=True, kw_only=True)
class Training:
    """One adapter to be made: from which base and dataset, by which recipe and engine."""

    base: Artifact
    dataset: Artifact
    recipe: Recipe
    template: str
    engine: InstalledEngine

    @property
    def fingerprint(self) -> str:
        """Equal for trainings of the same thing; those are reused, not run again."""
        return fingerprint_of(
            base=self.base.digest,
            dataset=self.dataset.digest,
            recipe=self.recipe.effective,
            template=self.template,
        )

    @property
    def disk_bytes(self) -> int:
        """Room for checkpoints, the adapter and the merged model after it. An estimate on the safe side."""
        kept = max(KEPT_CHECKPOINTS, self.recipe.number("save_total_limit", KEPT_CHECKPOINTS))
        full = FULL_CHECKPOINT_FACTOR * (kept + 1) + FULL_RESULT_FACTOR
        factor = full if self.recipe.finetuning_type == "full" else LORA_FACTOR
        return int(self.base.size_bytes * (factor + MERGED_FACTOR)) + CHECKPOINT_OVERHEAD_BYTES

    def order(self, line: Line) -> WorkOrder:
        return WorkOrder(
            engine="train",
            worker="train",
            inputs={"base": self.base, "dataset": self.dataset},
            params={
                "base_model": self.base.line.name,
                "recipe": self.recipe.effective,
                "template": self.template,
                "device": self.engine.device,
            },
            output=Output(line=line, fingerprint=self.fingerprint),
            needs=Needs(gpus=1 if self.engine.device == "cuda" else 0, disk_bytes=self.disk_bytes),
        )

    def manifest(self, measured: TrainingResult) -> AdapterManifest:
        """What the adapter's manifest says for ever: its parents, its recipe, its measurements."""
        return AdapterManifest(
            fingerprint=self.fingerprint,
            base_uri=self.base.uri,
            base_digest=self.base.digest,
            dataset_uri=self.dataset.uri,
            dataset_digest=self.dataset.digest,
            recipe=self.recipe.effective,
            recipe_origin=self.recipe.origin,
            recipe_replaced=self.recipe.replaced,
            recipe_without_effect=self.recipe.without_effect,
            template=self.template,
            engine_lock=self.engine.lock_digest,
            training=measured,
        )


def engine_upgrade(adapter: Artifact, engine: InstalledEngine) -> str | None:
    """By which engine an adapter was trained and what is installed now; None where it is the same.

    Names the packages that an adapter's manifest records; others may differ too.
    """
    manifest = AdapterManifest.of(adapter)
    if manifest.engine_lock == engine.lock_digest:
        return None
    changed = [
        f"{name} {version}, now {engine.versions.get(name, 'not installed')}"
        for name, version in manifest.training.engine_versions.items()
        if engine.versions.get(name) != version
    ]
    return "; ".join(changed) or "the same versions of the packages that count, in another lock"
