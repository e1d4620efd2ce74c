"""`base_models/<base>`: what every fine-tuned model starts from, shared by all tenants."""

from dataclasses import fields

import dagster as dg

from llm_assets.assets.parameters import read_once
from llm_assets.assets.turns import step_turn
from llm_assets.base_model_imports import drop_source, import_base_model
from llm_assets.catalog.base_models import BaseModelEntry
from llm_assets.installation.settings import Settings
from llm_assets.keys import BASE_MODELS, base_model_key
from llm_assets.manifests import BaseModelManifest
from llm_assets.presentation import artifact_metadata
from resources.artifact_store.artifacts import Artifact, Line, fingerprint_of
from resources.artifact_store.store import ArtifactStore
from resources.base_models.sources import BaseModelFacts, BaseModelSourceError, fetch
from resources.seams.compute import Compute, Output
from resources.seams.state import State

# What the catalog may say of a base model, and its configuration has to bear out.
DECLARED = ("context_length", "tied_embeddings")


def base_model(entry: BaseModelEntry) -> dg.AssetsDefinition:
    """The asset of one base model of the catalog."""

    @dg.asset(
        key=base_model_key(entry.name),
        group_name=BASE_MODELS,
        kinds={"huggingface", "safetensors"},
        owners=[entry.owner],
        code_version="1",
        description=f"{entry.description}\n\nFetched from `{entry.source}`, licence `{entry.licence}`. "
        "A folder of safetensors, tokenizer and configuration that all tenants share.",
    )
    @read_once
    def _base_model(
        context: dg.AssetExecutionContext,
        artifact_store: ArtifactStore,
        compute: dg.ResourceParam[Compute],
        settings: dg.ResourceParam[Settings],
        state: dg.ResourceParam[State],
    ) -> dg.MaterializeResult[None]:
        line = Line(collection="base_models", tenant=None, name=entry.name)
        with step_turn(context, state, None, entry.name):
            fetched = fetch(entry.source, sha256=entry.sha256, cache=settings.cache)
            fingerprint = fingerprint_of(
                source=entry.source,
                content=fetched.fingerprint,
                licence=entry.licence,
                facts=[field.name for field in fields(BaseModelFacts)],
            )
            artifact = artifact_store.find(line, fingerprint)
            if artifact is None:
                imported = import_base_model(
                    context,
                    fetched,
                    Output(line=line, fingerprint=fingerprint),
                    settings.work / BASE_MODELS / entry.name / "fetched",
                    store=artifact_store,
                    compute=compute,
                )
                refuse_other_facts(entry, imported.facts)
                manifest = BaseModelManifest(
                    fingerprint=fingerprint, source=entry.source, licence=entry.licence, facts=imported.facts
                )
                artifact = artifact_store.finish(imported.draft, manifest.attributes())
            refuse_other_facts(entry, BaseModelManifest.of(artifact).facts)
            drop_source(artifact_store, line)
            compute.clear(line)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(artifact.digest),
            metadata=_facts(artifact) | artifact_metadata(artifact),
        )

    return _base_model


def refuse_other_facts(entry: BaseModelEntry, facts: BaseModelFacts) -> None:
    """Raises BaseModelSourceError where the catalog says something else than the model's config.json."""
    wrong = [
        f"{name} is {getattr(facts, name)!r}, not {getattr(entry, name)!r}"
        for name in DECLARED
        if getattr(entry, name) not in (None, getattr(facts, name))
    ]
    if wrong:
        raise BaseModelSourceError(
            f"base_models/{entry.name}.yaml does not describe {entry.source}: by its config.json "
            f"{' and '.join(wrong)}. Correct the file, or take another source."
        )


def _facts(artifact: Artifact) -> dict[str, dg.MetadataValue]:
    manifest = BaseModelManifest.of(artifact)
    facts = manifest.facts
    return {
        "llm/source": dg.MetadataValue.text(manifest.source),
        "llm/licence": dg.MetadataValue.text(manifest.licence),
        "llm/architecture": dg.MetadataValue.text(facts.architecture),
        "llm/parameters": dg.MetadataValue.int(facts.parameters),
        "llm/dtype": dg.MetadataValue.text(facts.dtype),
        "llm/context_length": dg.MetadataValue.text(str(facts.context_length or "not limited")),
        "llm/tied_embeddings": dg.MetadataValue.bool(facts.tied_embeddings),
    }
