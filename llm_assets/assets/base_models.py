"""`base_models/<base>`: what every fine-tuned model starts from, shared by all tenants."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import dagster as dg

from llm_assets.assets.parameters import read_once
from llm_assets.assets.turns import step_turn
from llm_assets.catalog.base_models import BaseModelEntry
from llm_assets.installation.settings import Settings
from llm_assets.keys import BASE_MODELS, base_model_key
from llm_assets.presentation import artifact_metadata
from resources.artifact_store.artifacts import Artifact, Line, fingerprint_of
from resources.artifact_store.store import ArtifactStore
from resources.base_models.folders import left_files, take_out_code, taken_files
from resources.base_models.sources import BaseModelFacts, BaseModelSourceError, Fetched, fetch, inspect
from resources.compute import LocalCompute, WorkOrder
from resources.disk import require_free_space
from resources.seams.state import State

SHOWN_FILES = 10
# What the catalog may say of a base model, and its configuration has to bear out.
DECLARED = ("context_length", "tied_embeddings")
GGUF_GROWTH = 4  # from four bits a weight, the least that is common, to sixteen


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
        compute: LocalCompute,
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
                folder = _as_folder(context, compute, fetched, settings.work / BASE_MODELS / entry.name)
                facts = asdict(inspect(folder))
                refuse_other_facts(entry, facts)
                attributes = {"fingerprint": fingerprint, "source": entry.source, "facts": facts}
                artifact = artifact_store.publish(line, folder, attributes | {"licence": entry.licence})
            refuse_other_facts(entry, artifact.attributes["facts"])
        return dg.MaterializeResult(
            data_version=dg.DataVersion(artifact.digest),
            metadata=_facts(artifact) | artifact_metadata(artifact),
        )

    return _base_model


def refuse_other_facts(entry: BaseModelEntry, facts: Mapping[str, Any]) -> None:
    """Raises BaseModelSourceError where the catalog says something else than the model's config.json."""
    wrong = [
        f"{name} is {facts[name]!r}, not {getattr(entry, name)!r}"
        for name in DECLARED
        if getattr(entry, name) not in (None, facts[name])
    ]
    if wrong:
        raise BaseModelSourceError(
            f"base_models/{entry.name}.yaml does not describe {entry.source}: by its config.json "
            f"{' and '.join(wrong)}. Correct the file, or take another source."
        )


def _as_folder(
    context: dg.AssetExecutionContext, compute: LocalCompute, fetched: Fetched, work: Path
) -> Path:
    """The fetched model as a new folder of safetensors that may be moved into the store."""
    folder = work / "folder"
    shutil.rmtree(folder, ignore_errors=True)
    files = [fetched.path] if fetched.kind == "gguf" else taken_files(fetched.path)
    needed = sum(file.stat().st_size for file in files) * (GGUF_GROWTH if fetched.kind == "gguf" else 1)
    require_free_space(work, needed, what=f"The base model {fetched.path.name}")
    if fetched.kind == "gguf":
        order = {"gguf_file": str(fetched.path), "output_folder": str(folder), "dtype": "bfloat16"}
        compute.run(context, WorkOrder(engine="train", worker="import_gguf", order=order, folder=work))
    else:
        _say_left(context, fetched.path)
        for file in files:
            target = folder / file.relative_to(fetched.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        for taken in take_out_code(folder):
            context.log.info(f"Left out {taken}: it names code of the model's own, which is never run.")
    if not (folder / "tokenizer.json").is_file():
        tokenizer = {"model_folder": str(folder)}
        compute.run(context, WorkOrder(engine="train", worker="fast_tokenizer", order=tokenizer, folder=work))
    return folder


def _say_left(context: dg.AssetExecutionContext, folder: Path) -> None:
    left = [file.relative_to(folder).as_posix() for file in left_files(folder)]
    if left:
        shown = ", ".join(left[:SHOWN_FILES]) + (", …" if len(left) > SHOWN_FILES else "")
        context.log.info(f"Taken without {len(left)} files that do not belong to the model: {shown}.")


def _facts(artifact: Artifact) -> dict[str, dg.MetadataValue]:
    facts = artifact.attributes["facts"]
    return {
        "llm/source": dg.MetadataValue.text(artifact.attributes["source"]),
        "llm/licence": dg.MetadataValue.text(artifact.attributes["licence"]),
        "llm/architecture": dg.MetadataValue.text(facts["architecture"]),
        "llm/parameters": dg.MetadataValue.int(facts["parameters"]),
        "llm/dtype": dg.MetadataValue.text(facts["dtype"]),
        "llm/context_length": dg.MetadataValue.text(str(facts["context_length"] or "not limited")),
        "llm/tied_embeddings": dg.MetadataValue.bool(facts["tied_embeddings"]),
    }
