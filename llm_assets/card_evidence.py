"""From artifacts and catalog entries to the evidence of a model card and the entry of the registry."""

from typing import Any

from llm_assets.catalog.base_models import BaseModelEntry
from llm_assets.catalog.models import ModelEntry
from llm_assets.catalog.tenants import TenantEntry
from llm_assets.loss_rules import LOSSES
from llm_assets.made_from import Lineage
from llm_assets.model_cards import Evidence, SampleAnswer, model_summary, version_summary
from resources.artifact_store.artifacts import Artifact
from resources.mlflow.registry import RegistryEntry


def evidence_of(tenant: TenantEntry, model: ModelEntry, base: BaseModelEntry, lineage: Lineage) -> Evidence:
    return Evidence(
        **_from_catalog(tenant, model, base),
        **_from_base(lineage.base),
        **_from_dataset(lineage.dataset),
        **_from_adapter(lineage.adapter),
        **_from_merged(lineage),
    )


def _from_catalog(tenant: TenantEntry, model: ModelEntry, base: BaseModelEntry) -> dict[str, Any]:
    return {
        "tenant": tenant.name,
        "tenant_owner": tenant.owner,
        "model": model.name,
        "owner": model.owner,
        "purpose": model.purpose,
        "risk_class": model.risk_class,
        "risk_reasoning": model.risk_reasoning,
        "thresholds": model.thresholds,
        "written": model.card.model_dump(),
        "serving_mode": model.serving.mode,
        "max_model_len": model.serving.max_model_len,
        "base_model": base.name,
        "base_licence": base.licence,
    }


def _from_base(base: Artifact) -> dict[str, Any]:
    return {
        "base_source": base.attributes["source"],
        "base_digest": base.digest,
        "base_architecture": base.attributes["facts"]["architecture"],
        "base_parameters": base.attributes["facts"]["parameters"],
    }


def _from_dataset(dataset: Artifact) -> dict[str, Any]:
    return {
        "dataset_digest": dataset.digest,
        "dataset_format": dataset.attributes["format"],
        "train_rows": dataset.attributes["train_rows"],
        "held_out_rows": dataset.attributes["held_out_rows"],
        "statistics": dataset.attributes["statistics"],
    }


def _from_adapter(adapter: Artifact) -> dict[str, Any]:
    training = adapter.attributes["training"]
    measured = (*LOSSES, "steps", "tokens", "flop", "train_seconds")
    return {name: training.get(name) for name in measured} | {
        "peak_memory_bytes": training.get("peak_memory_bytes"),
        "engine_versions": training["engine_versions"],
        "recipe": adapter.attributes["recipe"],
        "recipe_origin": adapter.attributes["recipe_origin"],
        "recipe_digest": adapter.fingerprint,
        "template": adapter.attributes["template"],
        "curves": any(file.path == "training/curves.png" for file in adapter.files),
    }


def _from_merged(lineage: Lineage) -> dict[str, Any]:
    merge = lineage.merged.attributes["merge"]
    full = lineage.adapter.attributes["recipe"].get("finetuning_type") == "full"
    answers = [SampleAnswer(question=each["question"], text=each["text"]) for each in merge["answers"]]
    return {
        "digest": lineage.merged.digest,
        "adapter_digest": None if full else lineage.adapter.digest,
        "dtype": merge.get("dtype"),
        "size_bytes": lineage.merged.size_bytes,
        "answers": tuple(answers),
    }


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
