"""`<model>/merged_model`: base and adapter as one Hugging Face folder, how it answers, and how true it is."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from llm_assets.assets.checks import Verdict, artifact_check
from llm_assets.catalog.models import ModelEntry
from llm_assets.datasets.held_out import held_out_rows
from llm_assets.keys import LORA_ADAPTER, MERGED_MODEL, base_model_key, model_key
from llm_assets.line_lock import line_lock
from llm_assets.lineage import check_bound, materialized
from llm_assets.partitions import tenants_of
from llm_assets.presentation import artifact_metadata, table
from llm_assets.settings import Settings
from llm_assets.workers.merging.journal import MERGE_VERSION
from resources.artifact_store import ArtifactStore
from resources.artifacts import Artifact, Line, fingerprint_of
from resources.compute import LocalCompute, WorkOrder
from resources.disk import require_free_space
from resources.engines import InstalledEngine

ANSWER_TOKENS = 32
COMPARED_ROWS = 8


def merged_model(model: ModelEntry) -> dg.AssetsDefinition:
    """The asset of one model's merged models, a partition a tenant."""

    @dg.asset(
        key=model_key(model.name, MERGED_MODEL),
        deps=[base_model_key(model.base_model), model_key(model.name, LORA_ADAPTER)],
        partitions_def=tenants_of(model.name),
        group_name=model.name,
        kinds={"huggingface", "safetensors"},
        owners=[model.owner],
        code_version="2",
        description="The folder that vLLM serves: base model and adapter merged, every tensor accounted for, "
        "with the chat template of the training, its own answers to the model's known questions, and how far "
        "its next-token distributions are from those of base and adapter.",
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
                method=model.merge,
                merge_version=MERGE_VERSION,
            )
            artifact = artifact_store.find(line, fingerprint)
            if artifact is None:
                require_free_space(settings.home, int(base.size_bytes * 1.2), what=f"Merging {line}")
                dataset = artifact_store.get(adapter.attributes["dataset_uri"])
                folder = settings.work / str(line)
                result = compute.run(context, _order(model, base, adapter, dataset, engine, folder))
                result.pop("files")  # they are in the manifest
                attributes = _attributes(base, adapter) | {"fingerprint": fingerprint, "merge": result}
                artifact = artifact_store.publish(line, folder / "output", attributes)
            shutil.rmtree(settings.work / str(line), ignore_errors=True)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(artifact.digest),
            metadata=_facts(artifact) | artifact_metadata(artifact),
        )

    return _merged_model


def _order(
    model: ModelEntry,
    base: Artifact,
    adapter: Artifact,
    dataset: Artifact,
    engine: InstalledEngine,
    folder: Path,
) -> WorkOrder:
    """The folder is the line's own, so that a merge that was interrupted goes on where it stopped."""
    order = {
        "base_folder": str(base.folder),
        "base_files": {file.path: file.sha256 for file in base.files},
        "adapter_folder": str(adapter.folder),
        "adapter_files": {file.path: file.sha256 for file in adapter.files},
        "merge": model.merge,
        "held_out": held_out_rows(dataset.folder, COMPARED_ROWS),
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
    merge = artifact.attributes["merge"]
    facts = {
        "llm/base_digest": dg.MetadataValue.text(artifact.attributes["base_digest"]),
        "llm/adapter_digest": dg.MetadataValue.text(artifact.attributes["adapter_digest"]),
        "llm/merge_method": dg.MetadataValue.text(merge["method"]),
        "llm/answers": table(
            [{"question": each["question"], "answer": each["text"]} for each in merge["answers"]]
        ),
    }
    if ledger := merge.get("ledger"):
        facts["llm/merge_ledger"] = table([ledger])
        facts["llm/merge_seconds"] = dg.MetadataValue.float(merge["stream"]["seconds"])
        facts["llm/merge_peak_memory_bytes"] = dg.MetadataValue.int(merge["stream"]["peak_memory_bytes"])
        facts["llm/merge_largest_error"] = dg.MetadataValue.float(merge["stream"]["largest_error"])
    if fidelity := merge.get("fidelity"):
        facts["llm/fidelity"] = table(
            [_fidelity_row(each) for each in (*fidelity["prompts"], _whole(fidelity))]
        )
    return facts


def _whole(fidelity: Mapping[str, Any]) -> dict[str, Any]:
    return {"prompt": "all", "kind": f"at most {fidelity['limit_mean_kl']:.2g} is allowed", **fidelity}


def _fidelity_row(found: Mapping[str, Any]) -> dict[str, object]:
    """One line of base + adapter against merged; KL in nats."""
    return {
        "prompt": found["prompt"],
        "kind": found["kind"],
        "tokens": found["positions"],
        "mean KL": f"{found['mean_kl']:.2g}",
        "max KL": f"{found['max_kl']:.2g}",
        "same likeliest token": f"{found['top1_agreement']:.1%}",
    }


def merged_model_checks(model: ModelEntry) -> list[dg.AssetChecksDefinition]:
    """What has to be true of a merged model before it may be deployed."""

    def answers_every_known_question(merged: Artifact) -> Verdict:
        """The merged model, loaded from its own folder, says something to every known question."""
        answers = merged.attributes["merge"]["answers"]
        silent = [answer["question"] for answer in answers if not answer["text"].strip()]
        why = f"No answer to: {', '.join(silent)}" if silent else f"It answered {len(answers)} questions."
        return Verdict(holds=not silent, why=why, figures={"answers": len(answers)})

    return [
        artifact_check(model, MERGED_MODEL, answers_every_known_question, blocking=True),
        artifact_check(model, MERGED_MODEL, merged_answers_as_base_with_adapter, blocking=True),
    ]


def merged_answers_as_base_with_adapter(merged: Artifact) -> Verdict:
    """Merged, the next-token distributions are those of base and adapter, but for rounding."""
    fidelity = merged.attributes["merge"].get("fidelity")
    if fidelity is None:
        return Verdict(holds=True, why=_not_compared(merged.attributes["merge"]))
    found, limit = fidelity["mean_kl"], fidelity["limit_mean_kl"]
    agreed = fidelity["top1_agreement"]
    said = f"Mean KL {found:.2g} at {fidelity['positions']} tokens, at most {limit:.2g} is rounding"
    return Verdict(
        holds=found <= limit,
        why=f"{said}; the same likeliest token at {agreed:.1%}.",
        figures={"mean_kl": found, "limit_mean_kl": limit, "top1_agreement": agreed},
    )


def _not_compared(merge: Mapping[str, Any]) -> str:
    if merge["method"] == "trained in full":
        return "The model was trained in full: nothing was merged."
    return (
        "Not compared: there is no question and no held-out row, the vocabulary was resized, or the model "
        "does not fit into memory in float32; the log of the run says which."
    )
