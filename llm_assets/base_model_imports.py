"""From what was fetched to a published base model: a folder of safetensors, tokenizer and configuration.

Most come as such a folder and are published as they are, without what does not belong to the model. A GGUF
file, and a folder without `tokenizer.json`, need the train engine: they are published as a source, which a
work order makes the base model from, and which is deleted then.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from llm_assets.work_orders import carry_out
from resources.artifact_store.artifacts import Artifact, Line
from resources.artifact_store.store import ArtifactStore
from resources.base_models.folders import left_files, take_out_code, taken_files
from resources.base_models.sources import BaseModelFacts, Fetched, inspect
from resources.disk import require_free_space
from resources.seams.compute import Compute, Needs, Output, WorkOrder

SHOWN_FILES = 10
GGUF_GROWTH = 4  # from four bits a weight, the least that is common, to sixteen
TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A base model whose files lie in the store, and which nobody sees yet; what they say of it."""

    draft: Artifact
    facts: BaseModelFacts


def import_base_model(
    context: dg.AssetExecutionContext,
    fetched: Fetched,
    made: Output,
    work: Path,
    *,
    store: ArtifactStore,
    compute: Compute,
) -> Imported:
    """`work` is a folder for a copy of what was fetched.

    Raises:
        BaseModelSourceError: It is no whole model, or not safe to load.
    """
    copied = _copied(context, fetched, work)
    if fetched.kind == "folder" and (copied / TOKENIZER_FILE).is_file():
        facts = inspect(copied)
        draft = store.send(made.line, copied, made.fingerprint, log=context.log.info)
        shutil.rmtree(copied)
        return Imported(draft=draft, facts=facts)
    line = Line(collection="sources", tenant=None, name=made.line.name)
    source = store.publish(line, copied, {"fingerprint": made.fingerprint}, log=context.log.info)
    gguf = fetched.kind == "gguf"
    order = WorkOrder(
        engine="train",
        worker="import_gguf" if gguf else "fast_tokenizer",
        inputs={"source": source},
        params={"gguf_file": fetched.path.name, "dtype": "bfloat16"} if gguf else {},
        output=Output(line=made.line, fingerprint=made.fingerprint, parents=(source,)),
        needs=Needs(disk_bytes=source.size_bytes * (GGUF_GROWTH if gguf else 1)),
    )
    draft = carry_out(context, compute, order).draft
    with store.hold(draft) as held:
        return Imported(draft=draft, facts=inspect(held.folder))


def drop_source(store: ArtifactStore, line: Line) -> None:
    """Once the base model is published. What is gone already is fine."""
    for source in store.versions(Line(collection="sources", tenant=None, name=line.name)):
        store.delete(source)


def _copied(context: dg.AssetExecutionContext, fetched: Fetched, work: Path) -> Path:
    """A folder that may be moved into the store."""
    shutil.rmtree(work, ignore_errors=True)
    root = fetched.path.parent if fetched.kind == "gguf" else fetched.path
    files = [fetched.path] if fetched.kind == "gguf" else taken_files(root)
    needed_bytes = sum(file.stat().st_size for file in files)
    require_free_space(work, needed_bytes, what=f"The base model {fetched.path.name}")
    for file in files:
        target = work / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    if fetched.kind == "folder":
        _say_left(context, root)
        for taken in take_out_code(work):
            context.log.info(f"Left out {taken}: it names code of the model's own, which is never run.")
    return work


def _say_left(context: dg.AssetExecutionContext, folder: Path) -> None:
    left = [file.relative_to(folder).as_posix() for file in left_files(folder)]
    if left:
        shown = ", ".join(left[:SHOWN_FILES]) + (", …" if len(left) > SHOWN_FILES else "")
        context.log.info(f"Taken without {len(left)} files that do not belong to the model: {shown}.")
