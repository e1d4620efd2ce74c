"""`<model>/merged_model`: base and adapter as one Hugging Face folder, how it answers, and how true it is."""

from dataclasses import dataclass
from typing import Any

import dagster as dg

from llm_assets.assets.checks import Verdict, artifact_check
from llm_assets.assets.parameters import read_once
from llm_assets.assets.turns import step_turn
from llm_assets.catalog.models import ModelEntry
from llm_assets.datasets.held_out import published_held_out_rows
from llm_assets.keys import LORA_ADAPTER, MERGED_MODEL, base_model_key, model_key
from llm_assets.lineage import check_bound, materialized_for
from llm_assets.made_from import parent_of
from llm_assets.manifests import AdapterManifest, Comparison, Fidelity, Merge, MergedManifest
from llm_assets.partitions import tenants_of
from llm_assets.presentation import artifact_metadata, table
from llm_assets.training import MERGED_FACTOR
from llm_assets.work_orders import carry_out
from llm_assets.workers.merging.journal import MERGE_VERSION
from resources.artifact_store.artifacts import Artifact, Line, fingerprint_of
from resources.artifact_store.store import ArtifactStore
from resources.engines.locks import InstalledEngine
from resources.seams.compute import Compute, Needs, Output, WorkOrder
from resources.seams.state import State

ANSWER_TOKENS = 32
COMPARED_ROWS = 8
MOST_LOST = (
    0.1  # of the KL divergence that the adapter makes; docs/decisions/2026-11-30-rounding-at-random.md
)
FIDELITY_FIGURES = (
    "mean_kl",
    "limit_mean_kl",
    "base_mean_kl",
    "lost_share",
    "top1_agreement",
    "base_loss",
    "adapter_loss",
    "merged_loss",
)


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
        pool="gpu",  # the merged model is loaded and answers
        description="The folder that vLLM serves: base model and adapter merged, every tensor accounted for, "
        "with the chat template of the training, its own answers to the model's known questions, and how far "
        "its next-token distributions are from those of base and adapter.",
    )
    @read_once
    def _merged_model(
        context: dg.AssetExecutionContext,
        artifact_store: ArtifactStore,
        compute: dg.ResourceParam[Compute],
        state: dg.ResourceParam[State],
    ) -> dg.MaterializeResult[None]:
        tenant = context.partition_key
        line = Line(collection="models", tenant=tenant, name=model.name)
        engine = compute.engine("train")
        with step_turn(context, state, tenant, model.name):
            base = materialized_for(context, artifact_store, base_model_key(model.base_model))
            adapter = materialized_for(context, artifact_store, model_key(model.name, LORA_ADAPTER), tenant)
            check_bound(adapter, base)
            fingerprint = fingerprint_of(
                adapter=adapter.digest,
                base=base.digest,
                questions=model.known_questions,
                dtype=model.serving.dtype,
                method=model.merge,
                merge_version=MERGE_VERSION,
            )
            artifact = artifact_store.find(line, fingerprint)
            if artifact is None:
                merging = Merging(
                    model=model, base=base, adapter=adapter, engine=engine, fingerprint=fingerprint
                )
                artifact = _merge(context, merging, line, artifact_store, compute)
            compute.clear(line)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(artifact.digest),
            metadata=_facts(artifact) | artifact_metadata(artifact),
        )

    return _merged_model


@dataclass(frozen=True, kw_only=True)
class Merging:
    """One merged model to be made: of which model, from what, by which engine."""

    model: ModelEntry
    base: Artifact
    adapter: Artifact
    engine: InstalledEngine
    fingerprint: str


def _merge(
    context: dg.AssetExecutionContext,
    merging: Merging,
    line: Line,
    artifact_store: ArtifactStore,
    compute: Compute,
) -> Artifact:
    """Each file of weights is sent while the next one is merged."""
    base, adapter = merging.base, merging.adapter
    dataset = parent_of(artifact_store.get, adapter, "dataset")
    held_out = published_held_out_rows(artifact_store, dataset, COMPARED_ROWS, log=context.log.info)
    made = carry_out(context, compute, _order(merging, line, held_out))
    manifest = MergedManifest(
        fingerprint=merging.fingerprint,
        base_uri=base.uri,
        base_digest=base.digest,
        adapter_uri=adapter.uri,
        adapter_digest=adapter.digest,
        dataset_uri=dataset.uri,
        dataset_digest=dataset.digest,
        merge=Merge.model_validate(made.result),
    )
    return artifact_store.finish(made.draft, manifest.attributes())


def _order(merging: Merging, line: Line, held_out: list[dict[str, Any]]) -> WorkOrder:
    model, base, adapter, engine = merging.model, merging.base, merging.adapter, merging.engine
    trained = AdapterManifest.of(adapter)
    return WorkOrder(
        engine="train",
        worker="merge",
        inputs={"base": base, "adapter": adapter},
        params={
            "merge": model.merge,
            "held_out": held_out,
            "template": trained.template,
            "recipe": trained.recipe,
            "questions": list(model.known_questions),
            "max_new_tokens": ANSWER_TOKENS,
            "dtype": model.serving.dtype,
            "device": engine.device,
        },
        output=Output(line=line, fingerprint=merging.fingerprint, parents=(base,)),
        needs=Needs(
            gpus=1 if engine.device == "cuda" else 0, disk_bytes=int(base.size_bytes * MERGED_FACTOR)
        ),
        compares_inputs=True,
    )


def _facts(artifact: Artifact) -> dict[str, dg.MetadataValue]:
    manifest = MergedManifest.of(artifact)
    merge = manifest.merge
    facts = {
        "llm/base_digest": dg.MetadataValue.text(manifest.base_digest),
        "llm/adapter_digest": dg.MetadataValue.text(manifest.adapter_digest),
        "llm/merge_method": dg.MetadataValue.text(merge.method),
        "llm/answers": table(
            [{"question": each["question"], "answer": each["text"]} for each in merge.answers]
        ),
    }
    if merge.ledger and merge.stream:
        facts["llm/merge_ledger"] = table([merge.ledger])
        facts["llm/merge_seconds"] = dg.MetadataValue.float(merge.stream.seconds)
        facts["llm/merge_peak_memory_bytes"] = dg.MetadataValue.int(merge.stream.peak_memory_bytes)
    if fidelity := merge.fidelity:
        rows = [_fidelity_row(each.prompt, each.kind, each) for each in fidelity.prompts]
        allowed = f"at most {fidelity.limit_mean_kl:.2g} is allowed"
        facts["llm/fidelity"] = table([*rows, _fidelity_row("all", allowed, fidelity)])
    return facts


def _fidelity_row(prompt: str, kind: str, found: Comparison) -> dict[str, object]:
    """One line of base + adapter against merged; KL in nats."""
    return {
        "prompt": prompt,
        "kind": kind,
        "tokens": found.positions,
        "mean KL": f"{found.mean_kl:.2g}",
        "max KL": f"{found.max_kl:.2g}",
        "same likeliest token": f"{found.top1_agreement:.1%}",
    }


def merged_model_checks(model: ModelEntry) -> list[dg.AssetChecksDefinition]:
    """What has to be true of a merged model before it may be deployed."""

    def answers_every_known_question(merged: Artifact) -> Verdict:
        """The merged model, loaded from its own folder, says something to every known question."""
        answers = MergedManifest.of(merged).merge.answers
        silent = [answer["question"] for answer in answers if not answer["text"].strip()]
        why = f"No answer to: {', '.join(silent)}" if silent else f"It answered {len(answers)} questions."
        return Verdict(holds=not silent, why=why, figures={"answers": len(answers)})

    return [
        artifact_check(model, MERGED_MODEL, answers_every_known_question, blocking=True),
        artifact_check(
            model,
            MERGED_MODEL,
            merged_answers_as_base_with_adapter,
            blocking=model.serving.mode == "merged",  # else no merged weights are served
        ),
    ]


def merged_answers_as_base_with_adapter(merged: Artifact) -> Verdict:
    """Merged, the next-token distributions are those of base and adapter: what was trained is not lost."""
    return verdict_of(MergedManifest.of(merged).merge)


def verdict_of(merge: Merge) -> Verdict:
    """Whether the merge may have lost nothing but what rounding loses."""
    fidelity = merge.fidelity
    if fidelity is None:
        return Verdict(holds=True, why=_not_compared(merge))
    fault = _fault(merge.method, fidelity)
    return Verdict(
        holds=fault is None,
        why=" ".join([fault, _found(fidelity)] if fault else [_found(fidelity)]),
        figures={name: found for name in FIDELITY_FIGURES if (found := getattr(fidelity, name)) is not None},
    )


def _fault(method: str, fidelity: Fidelity) -> str | None:
    """What is wrong with a merge, and what helps."""
    lost = fidelity.lost_share
    if lost > MOST_LOST and method == "export":
        return (
            f"Merged, {lost:.0%} of what the adapter changes is lost: the export rounds to nearest, and most "
            "of a gentle training's changes are less than half of a weight's last bit. Give the model's file "
            "`merge: stream`, which rounds at random, or `serving.mode: adapter`."
        )
    if lost > MOST_LOST:
        return (
            f"Merged, {lost:.0%} of what the adapter changes is lost: that is so little that rounding "
            "changes as much. Give the model's file `serving.mode: adapter`, or train longer."
        )
    if fidelity.mean_kl > fidelity.limit_mean_kl:
        return (
            "The merged model is further from base and adapter than rounding takes it: the merge is wrong. "
            "Give the model's file `serving.mode: adapter`, and report this."
        )
    return None


def _found(fidelity: Fidelity) -> str:
    said = (
        f"Mean KL {fidelity.mean_kl:.2g} from base and adapter at {fidelity.positions} tokens; "
        f"rounding may make it {fidelity.limit_mean_kl:.2g}, and the base alone has "
        f"{fidelity.base_mean_kl:.2g}."
    )
    if fidelity.merged_loss is None:
        return said
    return (
        f"{said} Loss on held-out rows: {fidelity.base_loss:.4f} of the base, "
        f"{fidelity.adapter_loss:.4f} with the adapter, {fidelity.merged_loss:.4f} merged."
    )


def _not_compared(merge: Merge) -> str:
    if merge.method == "trained in full":
        return "The model was trained in full: nothing was merged."
    return (
        "Not compared: there is no question and no held-out row, the vocabulary was resized, or the model "
        "does not fit into memory in float32; the log of the run says which."
    )
