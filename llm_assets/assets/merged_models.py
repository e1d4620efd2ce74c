"""`<model>/merged_model`: base and adapter as one Hugging Face folder, and how it answers."""

import shutil
from pathlib import Path

import dagster as dg

from llm_assets.assets.checks import Verdict, artifact_check
from llm_assets.catalog.models import ModelEntry
from llm_assets.keys import LORA_ADAPTER, MERGED_MODEL, base_model_key, model_key
from llm_assets.line_lock import line_lock
from llm_assets.lineage import check_bound, materialized
from llm_assets.partitions import tenants_of
from llm_assets.presentation import artifact_metadata, table
from llm_assets.settings import Settings
from resources.artifact_store import ArtifactStore
from resources.artifacts import Artifact, Line, fingerprint_of
from resources.compute import LocalCompute, WorkOrder
from resources.disk import require_free_space
from resources.engines import InstalledEngine

ANSWER_TOKENS = 32


def merged_model(model: ModelEntry) -> dg.AssetsDefinition:
    """The asset of one model's merged models, a partition a tenant."""

    @dg.asset(
        key=model_key(model.name, MERGED_MODEL),
        deps=[base_model_key(model.base_model), model_key(model.name, LORA_ADAPTER)],
        partitions_def=tenants_of(model.name),
        group_name=model.name,
        kinds={"huggingface", "safetensors"},
        owners=[model.owner],
        code_version="1",
        description="The folder that vLLM serves: base model and adapter merged by LLaMA-Factory's export, "
        "with the chat template of the training, and its own answers to the model's known questions.",
    )
    def _merged_model(
        context: dg.AssetExecutionContext,
        artifact_store: ArtifactStore,
        compute: LocalCompute,
        settings: dg.ResourceParam[Settings],
    ) -> dg.MaterializeResult[None]:
        tenant = context.partition_key
        line = Line(collection="models", tenant=tenant, name=model.name)
        engine = compute.engine("train")
        with line_lock(settings.locks, tenant, model.name, MERGED_MODEL, log=context.log.info):
            base = materialized(context.instance, artifact_store, base_model_key(model.base_model))
            adapter = materialized(
                context.instance, artifact_store, model_key(model.name, LORA_ADAPTER), tenant
            )
            check_bound(adapter, base)
            fingerprint = fingerprint_of(
                adapter=adapter.digest,
                base=base.digest,
                questions=model.known_questions,
                dtype=model.serving.dtype,
                engine=engine.lock_digest,
            )
            artifact = artifact_store.find(line, fingerprint)
            if artifact is None:
                require_free_space(settings.home, int(base.size_bytes * 1.2), what=f"Merging {line}")
                say = context.log.info
                with artifact_store.hold(base, say) as base_files, artifact_store.hold(adapter, say) as files:
                    work = _order(
                        model, base_files.folder, files.folder, adapter, engine, settings.work / str(line)
                    )
                    shutil.rmtree(work.folder, ignore_errors=True)
                    result = compute.run(context, work)
                attributes = _attributes(base, adapter) | {"fingerprint": fingerprint, "merge": result}
                artifact = artifact_store.publish(
                    line, work.folder / "output", attributes, parents=[base], log=say
                )
            shutil.rmtree(settings.work / str(line), ignore_errors=True)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(artifact.digest),
            metadata=_facts(artifact) | artifact_metadata(artifact),
        )

    return _merged_model


def _order(
    model: ModelEntry,
    base_folder: Path,
    adapter_folder: Path,
    adapter: Artifact,
    engine: InstalledEngine,
    folder: Path,
) -> WorkOrder:
    order = {
        "base_folder": str(base_folder),
        "adapter_folder": str(adapter_folder),
        "output_folder": str(folder / "output"),
        "template": adapter.attributes["template"],
        "recipe": adapter.attributes["recipe"],
        "questions": list(model.known_questions),
        "max_new_tokens": ANSWER_TOKENS,
        "dtype": model.serving.dtype,
        "device": engine.device,
    }
    return WorkOrder(engine="train", worker="merge", order=order, folder=folder)


def _attributes(base: Artifact, adapter: Artifact) -> dict[str, object]:
    return {
        "base_uri": base.uri,
        "base_digest": base.digest,
        "adapter_uri": adapter.uri,
        "adapter_digest": adapter.digest,
        "dataset_uri": adapter.attributes["dataset_uri"],
        "dataset_digest": adapter.attributes["dataset_digest"],
    }


def _facts(artifact: Artifact) -> dict[str, dg.MetadataValue]:
    answers = artifact.attributes["merge"]["answers"]
    return {
        "llm/base_digest": dg.MetadataValue.text(artifact.attributes["base_digest"]),
        "llm/adapter_digest": dg.MetadataValue.text(artifact.attributes["adapter_digest"]),
        "llm/answers": table([{"question": each["question"], "answer": each["text"]} for each in answers]),
    }


def merged_model_checks(model: ModelEntry) -> list[dg.AssetChecksDefinition]:
    """What has to be true of a merged model before it may be deployed."""

    def answers_every_known_question(merged: Artifact) -> Verdict:
        """The merged model, loaded from its own folder, says something to every known question."""
        answers = merged.attributes["merge"]["answers"]
        silent = [answer["question"] for answer in answers if not answer["text"].strip()]
        why = f"No answer to: {', '.join(silent)}" if silent else f"It answered {len(answers)} questions."
        return Verdict(holds=not silent, why=why, figures={"answers": len(answers)})

    return [artifact_check(model, MERGED_MODEL, answers_every_known_question, blocking=True)]
