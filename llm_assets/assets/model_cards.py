"""`<model>/model_card`: what a merged model is, computed from its lineage, and its entry in the registry."""

import json
import shutil
from pathlib import Path

import dagster as dg

from llm_assets.assets.adapters import CURVES
from llm_assets.assets.checks import Verdict, artifact_check
from llm_assets.assets.parameters import read_once
from llm_assets.assets.turns import step_turn
from llm_assets.card_evidence import evidence_of, registry_entry
from llm_assets.catalog.loading import Catalog
from llm_assets.catalog.models import ModelEntry
from llm_assets.comparison import compared
from llm_assets.installation.settings import Settings
from llm_assets.keys import MERGED_MODEL, MODEL_CARD, model_key
from llm_assets.lineage import materialized_for
from llm_assets.made_from import Lineage, lineage_of
from llm_assets.manifests import CardManifest
from llm_assets.model_cards import Card, Evidence, card_markdown, card_of
from llm_assets.model_cards.ai_act import can_be_filled_in
from llm_assets.partitions import tenants_of
from llm_assets.presentation import artifact_metadata
from resources.artifact_store.artifacts import Artifact, Line, fingerprint_of
from resources.artifact_store.store import ArtifactStore
from resources.mlflow.registry import MlflowRegistry
from resources.mlflow.server import Mlflow
from resources.seams.state import State

TRAINING_LOG = "training/trainer_log.jsonl"
COMPARED = "llm/compared_with_production"


def model_card(catalog: Catalog, model: ModelEntry) -> dg.AssetsDefinition:
    """The asset of one model's cards, a partition a tenant."""

    @dg.asset(
        key=model_key(model.name, MODEL_CARD),
        deps=[model_key(model.name, MERGED_MODEL)],
        partitions_def=tenants_of(model.name),
        group_name=model.name,
        kinds={"huggingface", "markdown", "mlflow"},
        owners=[model.owner],
        code_version="1",
        description="What the merged model is, computed from its lineage: a Hugging Face model card, the "
        "same as JSON, and the entry `<tenant>.<model>` of MLflow's registry. What nobody has filled in is "
        "listed as missing.",
    )
    @read_once
    def _model_card(
        context: dg.AssetExecutionContext,
        artifact_store: ArtifactStore,
        registry: dg.ResourceParam[MlflowRegistry],
        mlflow_server: dg.ResourceParam[Mlflow],
        settings: dg.ResourceParam[Settings],
        state: dg.ResourceParam[State],
    ) -> dg.MaterializeResult[None]:
        tenant = context.partition_key
        merged = materialized_for(context, artifact_store, model_key(model.name, MERGED_MODEL), tenant)
        lineage = lineage_of(artifact_store.get, merged)
        evidence = evidence_of(catalog.tenants[tenant], model, catalog.base_models[model.base_model], lineage)
        with step_turn(context, state, tenant, model.name):
            card = _publish(
                artifact_store,
                settings,
                lineage,
                evidence,
                Line(collection="cards", tenant=tenant, name=model.name),
            )
            mlflow_server.ensure_ready()
            training_run = registry.log_training(
                tenant,
                model.name,
                fingerprint=evidence.recipe_digest,
                params=evidence.recipe,
                history=_history(artifact_store, lineage.adapter),
                tags={"adapter": lineage.adapter.uri, "dataset_digest": lineage.dataset.digest},
            )
            version = registry.register(
                registry_entry(
                    evidence, lineage, card, training_run_id=training_run, dagster_run=context.run.run_id
                )
            )
        facts: dict[str, dg.MetadataValue] = {
            "llm/card": dg.MetadataValue.md(_body(artifact_store, card)),
            "llm/registry_version": dg.MetadataValue.int(version.number),
            "llm/registry_page": dg.MetadataValue.url(registry.page(tenant, model.name, version.number)),
            "llm/missing_fields": dg.MetadataValue.int(len(CardManifest.of(card).missing)),
        }
        production = registry.production(tenant, model.name)
        if production is not None and production.number != version.number:
            facts[COMPARED] = dg.MetadataValue.md(compared(artifact_store, production, version))
        context.log.info(f"Registered as version {version.number} ({version.label}) of {tenant}.{model.name}")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(card.digest), metadata=facts | artifact_metadata(card)
        )

    return _model_card


def _publish(
    store: ArtifactStore, settings: Settings, lineage: Lineage, evidence: Evidence, line: Line
) -> Artifact:
    content = card_of(evidence)
    fingerprint = fingerprint_of(card=content.model_dump(), model=lineage.merged.digest)
    known = store.find(line, fingerprint)
    if known is not None:
        return known
    folder = settings.work / str(line)
    shutil.rmtree(folder, ignore_errors=True)
    curves = store.read(lineage.adapter, CURVES) if lineage.adapter.has(CURVES) else None
    _write_card(folder, content, evidence, curves)
    manifest = CardManifest(
        fingerprint=fingerprint,
        model_uri=lineage.merged.uri,
        model_digest=lineage.merged.digest,
        missing=content.missing,
    )
    return store.publish(line, folder, manifest.attributes())


def _write_card(folder: Path, content: Card, evidence: Evidence, curves: bytes | None) -> None:
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(card_markdown(evidence))
    (folder / "card.json").write_text(
        json.dumps(content.model_dump(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    )
    if curves is not None:
        (folder / CURVES).parent.mkdir()
        (folder / CURVES).write_bytes(curves)


def _history(store: ArtifactStore, adapter: Artifact) -> list[dict[str, float]]:
    """LLaMA-Factory's log as rows by step; the last line of a log has no loss and is left out."""
    log = store.read(adapter, TRAINING_LOG).decode() if adapter.has(TRAINING_LOG) else ""
    rows = [json.loads(line) for line in log.splitlines()]
    kept = ("loss", "eval_loss", "lr", "epoch")
    points = [
        {"step": row["current_steps"], **{name: row[name] for name in kept if row.get(name) is not None}}
        for row in rows
    ]
    return [point for point in points if "loss" in point or "eval_loss" in point]


def _body(store: ArtifactStore, card: Artifact) -> str:
    """The card without its YAML header and without the picture, which the adapter's page shows."""
    text = store.read(card, "README.md").decode().split("\n---\n", 1)[-1]
    return "\n".join(line for line in text.splitlines() if CURVES not in line)


def model_card_checks(model: ModelEntry) -> list[dg.AssetChecksDefinition]:
    """What has to be true of a card before its model may be deployed."""

    def required_fields_are_filled(card: Artifact) -> Verdict:
        """Nothing that the model's risk class asks for and that can be filled in is missing; blocks a
        high-risk model.
        """
        missing = [each.field for each in can_be_filled_in(CardManifest.of(card).missing)]
        why = f"Missing: {', '.join(missing)}." if missing else "Nothing is missing."
        return Verdict(holds=not missing, why=why, figures={"missing_fields": len(missing)})

    return [
        artifact_check(model, MODEL_CARD, required_fields_are_filled, blocking=model.risk_class == "high")
    ]
