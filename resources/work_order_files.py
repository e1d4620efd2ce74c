"""The files of a work order, on whichever node runs it: inputs are staged, outputs sent while it goes on.

Where the node is this machine, `resources.local.compute` calls what is here. On another one two commands do
it beside the engine, told by one JSON file (`Transfers`); they need the platform's package, a way to the
artifact store, and nothing else of whoever asked:

    python -m resources.work_order_files stage TRANSFERS.json      before the engine is started
    python -m resources.work_order_files send TRANSFERS.json       beside it

The engine's process is given `worker_order` through Dagster Pipes. Whoever starts it writes its exit status
to `<order folder>/ended` and waits for `<order folder>/sent`, which is empty once all is in the store, else
says why not. `received` then reads in the store what was sent. Scratch and output survive to a second try
where the order folder does. Each try has a place of its own in the store, so a node that was thought lost
cannot write into the next one's; what the earlier try sent is taken over from there, not sent again.

Not covered: a worker that alters a file after it has reported it as whole. The file's SHA-256 is that of the
bytes that were sent, and where the worker gave another one, the order fails.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, TypeAdapter

from resources.artifact_store.artifacts import (
    BESIDE_THE_FILES,
    Artifact,
    ArtifactFile,
    entries_of,
    version_ending,
)
from resources.artifact_store.publication import Publication
from resources.artifact_store.store import ArtifactStore
from resources.beneath import NotFollowedError, opened
from resources.errors import LlmAssetsError
from resources.object_stores.disk import DiskStore
from resources.object_stores.objects import ObjectMissing
from resources.seams.compute import Output, WorkOrder, WorkOrderError

LOOK_S = 0.5
WAITING = "Waits for what the worker reports as whole, and for its end."
Log = Callable[[str], None]
_DRAFT = TypeAdapter(Artifact)


@dataclass(frozen=True, kw_only=True)
class OrderFolder:
    """An order's own folder: `output/` and `scratch/` are the worker's, the rest says how far it is."""

    root: Path

    @property
    def output(self) -> Path:
        return self.root / "output"

    @property
    def scratch(self) -> Path:
        return self.root / "scratch"

    @property
    def whole_files(self) -> Path:
        """Where the worker reports files of the output that are whole: `{"path", "size_bytes", "sha256"}` a
        line.
        """
        return self.root / "whole.jsonl"

    @property
    def ended(self) -> Path:
        return self.root / "ended"

    def status(self) -> str:
        """The exit status of the engine's process; nothing before it has ended."""
        return self.ended.read_text().strip() if self.ended.is_file() else ""

    @property
    def sent(self) -> Path:
        """Empty, or why the output could not be sent."""
        return self.root / "sent"

    def begin(self) -> None:
        """Before each try: what an earlier one reported may not be so any more."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        for report in (self.whole_files, self.ended, self.sent):
            report.unlink(missing_ok=True)


def worker_order(order: WorkOrder, inputs: Mapping[str, Path], folder: OrderFolder) -> dict[str, Any]:
    """What a worker is given (`llm_assets.workers.reporting` reads it); `inputs` are the staged folders."""
    return {
        "inputs": {name: str(staged_folder) for name, staged_folder in inputs.items()},
        "input_files": {
            name: {file.path: file.sha256 for file in artifact.files}
            for name, artifact in order.inputs.items()
        },
        "params": dict(order.params),
        "output_folder": str(folder.output),
        "scratch_folder": str(folder.scratch),
        "whole_files": str(folder.whole_files),
    }


@contextmanager
def held(store: ArtifactStore, order: WorkOrder, log: Log) -> Iterator[dict[str, Path]]:
    """A folder for each input with its verified files, which stay there while the block runs.

    Raises:
        ArtifactError: Names the first file that is missing or damaged.
        ObjectStoreError: The store cannot give it.
    """
    with ExitStack() as until_done:
        yield {
            name: until_done.enter_context(
                store.hold(artifact, log, compared_by_reader=order.compares_inputs)
            ).folder
            for name, artifact in order.inputs.items()
        }


class Sender:
    """Sends the files of an order's output to their place in the store; a block that ends sends nothing more.

    What was sent stays there when the block fails: the next try takes it over.
    """

    def __init__(self, store: ArtifactStore, output: Output, folder: OrderFolder, log: Log) -> None:
        self._store, self._output, self._folder, self._log = store, output, folder, log
        self._read_bytes = 0
        self._opened: Publication | None = None
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def look(self) -> None:
        """Begins to send the files that the worker has reported as whole since the last look."""
        if not self._folder.whole_files.is_file():
            return
        with self._folder.whole_files.open("rb") as stream:
            stream.seek(self._read_bytes)
            *lines, _ = stream.read().split(b"\n")  # the rest of a line may be on its way
        for line in lines:
            self._read_bytes += len(line) + 1
            whole = ArtifactFile(**json.loads(line))
            self._publication(None).add(whole.path, self._source(whole.path), sha256=whole.sha256)

    def draft(self) -> Artifact:
        """Sends the rest of the output and waits until all of it lies in the store.

        Raises:
            ArtifactError: There is no file, or one is not in the store as it was sent.
            ObjectStoreError: The store cannot take it.
        """
        self.look()
        output = self._folder.output
        entries = entries_of(output) if output.is_dir() else {}
        found = {path: each for path, each in entries.items() if path not in BESIDE_THE_FILES}
        publication = self._publication(sum(each.st_size for each in found.values()))
        for path in sorted(found):
            publication.add(path, self._source(path))
        return publication.draft()

    def _source(self, path: str) -> Path:
        """A file of the output. Whoever sends has the store's credential, which no worker may have published.

        Raises:
            WorkOrderError: It is a link, lies behind one, or is no regular file.
        """
        output = self._folder.output
        try:
            with opened(output) as folder:
                file = self._closing.enter_context(folder.open(*path.split("/")))
        except NotFollowedError as error:
            raise WorkOrderError(f"The worker's output cannot be sent: {error}.") from error
        if isinstance(self._store.objects, DiskStore):
            return output / path  # a disk takes the file itself, not its bytes
        return Path("/proc/self/fd", str(file.fileno()))

    def _publication(self, total_bytes: int | None) -> Publication:
        """Opened with the first file: a version's label says when it was begun, and what was begun days ago
        (a training takes days) and has no manifest is deleted.
        """
        if self._opened is None:
            output = self._output
            self._opened = self._closing.enter_context(
                self._store.publication(
                    output.line,
                    output.fingerprint,
                    parents=output.parents,
                    total_bytes=total_bytes,
                    log=self._log,
                )
            )
        return self._opened


class Transfers(BaseModel):
    """What the commands are told. Artifacts are named with their files, so no manifest has to be believed.

    Attributes:
        inputs_folder: Each input is staged at `<inputs folder>/<name>`.
        order_folder: Kept for a second try, where that should go on from the first one's scratch.
        listing: The key in the store at which `send` leaves what it has sent; another one for each try.
        cache: The node's cache; None: one in the inputs folder, for this order alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    store_url: str
    inputs: dict[str, Artifact]
    output: Output | None
    inputs_folder: Path
    order_folder: Path
    listing: str
    cache: Path | None = None
    cache_limit_bytes: int = 0

    @classmethod
    def of(
        cls, order: WorkOrder, *, store_url: str, inputs_folder: Path, order_folder: Path, attempt: str
    ) -> Self:
        """Those of a work order; `attempt` is unique for each try, a part of a path."""
        output = order.output
        return cls(
            store_url=store_url,
            inputs={name: _bare(artifact) for name, artifact in order.inputs.items()},
            output=output and replace(output, parents=tuple(map(_bare, output.parents))),
            inputs_folder=inputs_folder,
            order_folder=order_folder,
            listing=f"{output.line}/orders/{attempt}.json" if output else "",
        )

    @property
    def folders(self) -> dict[str, Path]:
        """Where each input is staged."""
        return {name: self.inputs_folder / name for name in self.inputs}

    def store(self) -> ArtifactStore:
        """Signs nothing."""
        limit_bytes = self.cache_limit_bytes or sum(each.size_bytes for each in self.inputs.values())
        return ArtifactStore(
            url=self.store_url,
            cache=str(self.cache or self.inputs_folder / ".cache"),
            cache_limit_bytes=limit_bytes,
        )


def stage(transfers: Transfers, log: Log) -> None:
    """Puts the verified files of every input into its folder, and makes the order's folder ready for a try.

    Raises:
        ArtifactError: Names the first file that is missing or damaged.
        ObjectStoreError: The store cannot give it.
    """
    OrderFolder(root=transfers.order_folder).begin()
    store = transfers.store()
    for name, folder in transfers.folders.items():
        artifact = transfers.inputs[name]
        with store.hold(artifact, log) as found:
            shutil.rmtree(folder, ignore_errors=True)
            for file in artifact.files:
                target = folder / file.path
                target.parent.mkdir(parents=True, exist_ok=True)
                _link_or_copy(found.folder / file.path, target)


def send(transfers: Transfers, log: Log) -> None:
    """Sends the output while the engine works, the rest when it has ended well, and leaves the listing.

    Raises:
        ArtifactError, ObjectStoreError: As `Sender.draft`.
    """
    folder = OrderFolder(root=transfers.order_folder)
    if transfers.output is None:
        raise WorkOrderError("This order makes no version, so there is nothing to send.")
    why = "it was interrupted"
    try:
        store = transfers.store()
        with Sender(store, transfers.output, folder, log) as sender:
            log(WAITING)
            while not (status := folder.status()):
                sender.look()
                time.sleep(LOOK_S)
            if status == "0":
                store.objects.delete(transfers.listing)
                store.objects.create(transfers.listing, _DRAFT.dump_json(sender.draft()))
        why = ""
    except LlmAssetsError as error:
        why = str(error)
        raise
    finally:
        folder.sent.write_text(why)


def received(store: ArtifactStore, transfers: Transfers) -> Artifact:
    """What `send` left in the store: a version without a manifest, for the step to finish.

    Raises:
        WorkOrderError: It left nothing, or something that is not this order's.
    """
    output = transfers.output
    assert output is not None, "this order makes a version"
    try:
        draft = _DRAFT.validate_json(store.objects.read(transfers.listing))
    except ObjectMissing as error:
        raise WorkOrderError("The engine ended, but its output was not sent.", retriable=True) from error
    store.objects.delete(transfers.listing)
    if draft.line != output.line or not draft.version.endswith(version_ending(output.fingerprint)):
        raise WorkOrderError(f"The node that made {output.line} says that it has sent {draft.uri}.")
    return replace(draft, attributes={})


def _bare(artifact: Artifact) -> Artifact:
    """What is known about it is the step's."""
    return replace(artifact, attributes={})


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def main() -> None:
    command, file = sys.argv[1:]
    transfers = Transfers.model_validate_json(Path(file).read_text(encoding="utf-8"))
    try:
        {"stage": stage, "send": send}[command](transfers, lambda line: print(line, flush=True))
    except LlmAssetsError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
