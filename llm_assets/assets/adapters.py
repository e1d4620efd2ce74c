"""`<model>/lora_adapter`: what LLaMA-Factory learned from a tenant's dataset."""

import dagster as dg

from llm_assets.assets.checks import Verdict, artifact_check
from llm_assets.assets.experiments import TrainingConfig
from llm_assets.assets.parameters import read_once
from llm_assets.assets.turns import step_turn
from llm_assets.catalog.argument_classes import reason_of
from llm_assets.catalog.limits import BaseLimits, Machine, late_mistakes
from llm_assets.catalog.loading import Catalog
from llm_assets.catalog.mistakes import CatalogError
from llm_assets.catalog.models import ModelEntry
from llm_assets.folder_stamps import EXPERIMENT_STAMP, GONE, stamp_of_experiments
from llm_assets.installation.settings import Settings
from llm_assets.keys import DATASET, LORA_ADAPTER, base_model_key, model_key
from llm_assets.lineage import materialized_for
from llm_assets.loss_rules import LOSSES, found_fall, missed_fall
from llm_assets.manifests import AdapterManifest, BaseModelManifest, TrainingResult
from llm_assets.outdated_recipes import RECIPE_TAG, recipe_tag
from llm_assets.partitions import tenants_of
from llm_assets.presentation import artifact_metadata, as_json, picture
from llm_assets.training import Training, engine_upgrade
from llm_assets.work_orders import carry_out
from resources.artifact_store.artifacts import Artifact, Line
from resources.artifact_store.store import ArtifactStore
from resources.engines.locks import InstalledEngine
from resources.seams.compute import Compute
from resources.seams.state import State

CURVES = "training/curves.png"


def lora_adapter(catalog: Catalog, model: ModelEntry) -> dg.AssetsDefinition:
    """The asset of one model's adapters, a partition a tenant."""
    template = catalog.base_models[model.base_model].template

    @dg.asset(
        key=model_key(model.name, LORA_ADAPTER),
        deps=[base_model_key(model.base_model), model_key(model.name, DATASET)],
        partitions_def=tenants_of(model.name),
        group_name=model.name,
        kinds={"llamafactory", "pytorch", "safetensors"},
        owners=[model.owner],
        code_version="1",
        pool="gpu",
        description="The weights that LLaMA-Factory trained on the tenant's dataset, bound to the base model "
        f"`{model.base_model}` by its digest. One training per fingerprint of base, data and recipe. A new "
        "engine trains nothing anew unless it is asked to.",
    )
    @read_once
    def _lora_adapter(
        context: dg.AssetExecutionContext,
        config: TrainingConfig,
        artifact_store: ArtifactStore,
        compute: dg.ResourceParam[Compute],
        settings: dg.ResourceParam[Settings],
        state: dg.ResourceParam[State],
    ) -> dg.MaterializeResult[None]:
        tenant = context.partition_key
        stamp = stamp_of_experiments(settings.experiments, tenant, model.name)
        line = Line(collection="adapters", tenant=tenant, name=model.name)
        with step_turn(context, state, tenant, model.name):
            training = Training(
                base=materialized_for(context, artifact_store, base_model_key(model.base_model)),
                dataset=materialized_for(context, artifact_store, model_key(model.name, DATASET), tenant),
                recipe=catalog.recipe_for(tenant, model.name, config.experiment),
                template=template,
                engine=compute.engine("train"),
            )
            refuse_late_mistakes(catalog, model, training, artifact_store.url)
            artifact = artifact_store.find(line, training.fingerprint)
            upgrade = engine_upgrade(artifact, training.engine) if artifact else None
            if artifact is None or (config.retrain and upgrade):
                artifact = _train(context, training, line, artifact_store, compute)
            else:
                context.log.info(f"Nothing that decides the training has changed: {artifact.uri} is reused.")
                if upgrade:
                    context.log.info(f"Another engine trained it ({upgrade}). {_retrain(model, tenant)}")
            compute.clear(line)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(artifact.digest),
            tags={RECIPE_TAG: recipe_tag(training.recipe)},
            metadata=_facts(artifact, artifact_store, training.engine)
            | artifact_metadata(artifact)
            | {EXPERIMENT_STAMP: GONE if config.experiment else stamp},
        )

    return _lora_adapter


def refuse_late_mistakes(catalog: Catalog, model: ModelEntry, training: Training, store_url: str) -> None:
    """Raises CatalogError for what only the fetched base model and this machine tell."""
    mistakes = late_mistakes(
        catalog.folder,
        model,
        training.recipe,
        limits=BaseLimits.fetched(BaseModelManifest.of(training.base).facts),
        machine=Machine(device=training.engine.device, store_url=store_url),
    )
    if mistakes:
        raise CatalogError(catalog.folder, mistakes)


def _train(
    context: dg.AssetExecutionContext,
    training: Training,
    line: Line,
    artifact_store: ArtifactStore,
    compute: Compute,
) -> Artifact:
    for key in training.recipe.replaced:
        context.log.info(f"{training.recipe.origin}: `{key}` is the platform's and was replaced.")
    for key in training.recipe.without_effect:
        context.log.info(f"{training.recipe.origin}: `{key}` has no effect: {reason_of(key)}.")
    made = carry_out(context, compute, training.order(line))
    return artifact_store.finish(
        made.draft, training.manifest(TrainingResult.model_validate(made.result)).attributes()
    )


def _retrain(model: ModelEntry, tenant: str) -> str:
    return f"To train it with the installed one: llm-assets run {model.name} --tenant {tenant} --retrain"


def _facts(
    artifact: Artifact, artifact_store: ArtifactStore, engine: InstalledEngine
) -> dict[str, dg.MetadataValue]:
    """Loss, cost and engine versions; the curves as a picture."""
    manifest = AdapterManifest.of(artifact)
    training = manifest.training
    facts: dict[str, dg.MetadataValue] = {}
    for name in (*LOSSES, "train_seconds", "flop"):
        if (measured := getattr(training, name)) is not None:
            facts[f"llm/{name}"] = dg.MetadataValue.float(measured)
    for name in ("steps", "tokens", "peak_memory_bytes"):
        if (counted := getattr(training, name)) is not None:
            facts[f"llm/{name}"] = dg.MetadataValue.int(counted)
    if artifact.has(CURVES):
        curves = artifact_store.read(artifact, CURVES)
        facts["llm/loss_curves"] = picture(curves, "training and held-out loss by step")
    return facts | {
        "llm/recipe": as_json(manifest.recipe),
        "llm/recipe_origin": dg.MetadataValue.text(manifest.recipe_origin),
        "llm/base_digest": dg.MetadataValue.text(manifest.base_digest),
        "llm/dataset_digest": dg.MetadataValue.text(manifest.dataset_digest),
        "llm/engine_versions": as_json(training.engine_versions),
        "llm/engine_upgrade": dg.MetadataValue.text(engine_upgrade(artifact, engine) or "none"),
    }


def adapter_checks(model: ModelEntry) -> list[dg.AssetChecksDefinition]:
    """What has to be true of an adapter before anything is built on it."""

    def loss_fell(adapter: Artifact) -> Verdict:
        """The loss that the model's `thresholds.loss` names fell by at least `thresholds.min_loss_drop`, or
        noise alone could have hidden that it did.
        """
        losses = AdapterManifest.of(adapter).training.losses
        missed = missed_fall(model.thresholds, losses)
        return Verdict(
            holds=missed is None,
            why=f"{missed[0].upper()}{missed[1:]}." if missed else found_fall(model.thresholds, losses),
            figures=losses | {"min_loss_drop": model.thresholds.min_loss_drop},
        )

    def held_out_loss_is_within_the_threshold(adapter: Artifact) -> Verdict:
        """The loss on rows that were not trained on is at most the model's `thresholds.max_eval_loss`."""
        limit, found = model.thresholds.max_eval_loss, AdapterManifest.of(adapter).training.eval_loss
        if limit is None:
            return Verdict(holds=True, why="The model sets no threshold (thresholds.max_eval_loss).")
        if found is None:
            return Verdict(
                holds=False, why="The recipe evaluates nothing; set eval_strategy and a held-out part."
            )
        figures = {"eval_loss": found, "max_eval_loss": limit}
        return Verdict(
            holds=found <= limit, why=f"Held-out loss {found:.4g}, at most {limit}.", figures=figures
        )

    return [
        artifact_check(model, LORA_ADAPTER, loss_fell, blocking=True),
        artifact_check(model, LORA_ADAPTER, held_out_loss_is_within_the_threshold, blocking=True),
    ]
