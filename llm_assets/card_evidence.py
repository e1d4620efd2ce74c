"""From artifacts and catalog entries to the evidence of a model card and the entry of the registry."""

from llm_assets.catalog.base_models import BaseModelEntry
from llm_assets.catalog.models import ModelEntry
from llm_assets.catalog.tenants import TenantEntry
from llm_assets.loss_rules import LOSSES
from llm_assets.made_from import Lineage
from llm_assets.manifests import AdapterManifest, BaseModelManifest, DatasetManifest, MergedManifest
from llm_assets.model_cards import Evidence, SampleAnswer, model_summary, version_summary
from resources.artifact_store.artifacts import Artifact
from resources.mlflow.registry import RegistryEntry


def evidence_of(tenant: TenantEntry, model: ModelEntry, base: BaseModelEntry, lineage: Lineage) -> Evidence:
    """Raises:
    ArtifactError: A manifest of the lineage cannot be read.
    """
    base_model, dataset = BaseModelManifest.of(lineage.base), DatasetManifest.of(lineage.dataset)
    adapter, merge = AdapterManifest.of(lineage.adapter), MergedManifest.of(lineage.merged).merge
    training = adapter.training
    return Evidence(
        tenant=tenant.name,
        tenant_owner=tenant.owner,
        model=model.name,
        owner=model.owner,
        purpose=model.purpose,
        risk_class=model.risk_class,
        risk_reasoning=model.risk_reasoning,
        thresholds=model.thresholds,
        written=model.card.model_dump(),
        serving_mode=model.serving.mode,
        max_model_len=model.serving.max_model_len,
        base_model=base.name,
        base_licence=base.licence,
        base_source=base_model.source,
        base_digest=lineage.base.digest,
        base_architecture=base_model.facts.architecture,
        base_parameters=base_model.facts.parameters,
        dataset_digest=lineage.dataset.digest,
        dataset_format=dataset.format,
        train_rows=dataset.train_rows,
        held_out_rows=dataset.held_out_rows,
        statistics=dataset.statistics,
        recipe=adapter.recipe,
        recipe_origin=adapter.recipe_origin,
        recipe_digest=adapter.fingerprint,
        template=adapter.template,
        first_loss=training.first_loss,
        final_loss=training.final_loss,
        loss_noise=training.loss_noise,
        eval_loss_before=training.eval_loss_before,
        eval_loss=training.eval_loss,
        steps=training.steps,
        tokens=training.tokens,
        flop=training.flop,
        train_seconds=training.train_seconds,
        peak_memory_bytes=training.peak_memory_bytes,
        engine_versions=training.engine_versions,
        curves=any(file.path == "training/curves.png" for file in lineage.adapter.files),
        digest=lineage.merged.digest,
        adapter_digest=None if adapter.trained_in_full else lineage.adapter.digest,
        dtype=merge.dtype,
        size_bytes=lineage.merged.size_bytes,
        answers=tuple(SampleAnswer(question=each["question"], text=each["text"]) for each in merge.answers),
    )


def registry_entry(
    evidence: Evidence, lineage: Lineage, card: Artifact, *, training_run_id: str, dagster_run: str
) -> RegistryEntry:
    measured = (*LOSSES, "train_seconds")
    return RegistryEntry(
        tenant=evidence.tenant,
        model=evidence.model,
        version=lineage.merged.version,
        digest=lineage.merged.digest,
        base_model=evidence.base_model,
        base_digest=lineage.base.digest,
        dataset_digest=lineage.dataset.digest,
        recipe_digest=evidence.recipe_digest,
        adapter_digest=evidence.adapter_digest,
        card_digest=card.digest,
        owner=evidence.owner,
        risk_class=evidence.risk_class,
        purpose=evidence.purpose,
        metrics={name: value for name in measured if (value := getattr(evidence, name)) is not None},
        engine_versions=evidence.engine_versions,
        dagster_runs={"model_card": dagster_run},
        training_run_id=training_run_id,
        description=version_summary(evidence),
        model_description=model_summary(evidence),
    )
