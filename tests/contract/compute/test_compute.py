"""What every implementation of the compute seam does. A new one needs a line in `IMPLEMENTATIONS`.

Not covered: several nodes, GPUs, and a node that is lost (tests/cluster).
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from llm_assets.runs import QUIET
from resources.artifact_store.artifacts import Artifact, Line
from resources.artifact_store.store import ArtifactStore
from resources.disk import DiskError
from resources.errors import LlmAssetsError
from resources.hashes import sha256_of
from resources.local.compute import LocalCompute
from resources.seams.compute import Compute, Needs, Outcome, Output, WorkOrder, WorkOrderError
from tests.buckets import BUCKET, gcs_bucket
from tests.conftest import ROOT
from tests.contract.compute.stand_in_engine import LOCK_DIGEST, make_engine, make_package
from tests.contract.compute.unshared import UnsharedCompute

LINE = Line(collection="adapters", tenant="team-a", name="support_bot")
FINGERPRINT = "sha256:f"
SECRET = "LLM_ASSETS_SECRET_OF_THE_TEST"


@dataclass(frozen=True, kw_only=True)
class Node:
    """What an implementation is made of here: a store, two folders, an engine and the platform's packages."""

    store: ArtifactStore
    folder: Path
    state: Path
    engines: Path
    image: Path


def on_this_machine(node: Node) -> Compute:
    return LocalCompute(
        store=node.store,
        work=str(node.state / "work"),
        engines=str(node.engines),
        package=str(node.image / "llm_assets"),
    )


def apart(node: Node) -> Compute:
    return UnsharedCompute(
        store=node.store,
        node=node.folder,
        engines=node.engines,
        image=node.image,
        hidden=(ROOT, node.state),
    )


IMPLEMENTATIONS: Mapping[str, tuple[str, Callable[[Node], Compute]]] = {
    "local": ("disk", on_this_machine),
    "local over a bucket": ("bucket", on_this_machine),
    "a node apart": ("bucket", apart),
}


@dataclass(frozen=True, kw_only=True)
class World:
    """One implementation, and its store as the step sees it."""

    compute: Compute
    store: ArtifactStore
    node: Node
    objects: Path
    lines: list[str] = field(default_factory=list)

    def run(self, params: Mapping[str, Any], **changes: Any) -> Outcome:
        """Within a run of Dagster, as a step does."""
        order = self.order(params, **changes)

        @dg.op
        def carry_out(context: dg.OpExecutionContext) -> Outcome:
            return self.compute.run(context, order)

        @dg.job
        def alone() -> None:
            carry_out()

        with dg.DagsterInstance.ephemeral() as instance:
            run_id = dg.DagsterRun(job_name="x").run_id
            try:
                done = alone.execute_in_process(instance=instance, run_config=QUIET, run_id=run_id)
            finally:
                self.lines[:] = [entry.user_message for entry in instance.all_logs(run_id)]
        outcome: Outcome = done.output_for_node("carry_out")
        return outcome

    def order(self, params: Mapping[str, Any], **changes: Any) -> WorkOrder:
        output = Output(line=LINE, fingerprint=FINGERPRINT)
        given: dict[str, Any] = {"inputs": {}, "output": output} | changes
        return WorkOrder(engine="train", worker="contract", params=params, **given)

    def publish(self, name: str, **files: str) -> Artifact:
        folder = self.node.folder / f"new-{name}"
        folder.mkdir(parents=True)
        for file, text in files.items():
            (folder / file).write_text(text)
        line = Line(collection="base_models", tenant=None, name=name)
        return self.store.publish(line, folder, {"known": "only to the step"})

    def sent(self) -> set[str]:
        """What lies in the store below the line."""
        return {stored.key.removeprefix(f"{LINE}/") for stored in self.store.objects.list(f"{LINE}/")}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The engines and the image."""
    folder = tmp_path_factory.mktemp("installed")
    return make_engine(folder / "engines"), make_package(folder / "image")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("gcs")
    with gcs_bucket(folder) as served, pytest.MonkeyPatch.context() as patched:
        for name, value in served.environment.items():
            patched.setenv(name, value)
        yield folder / BUCKET


@pytest.fixture(params=IMPLEMENTATIONS)
def world(
    request: pytest.FixtureRequest,
    installed: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    monkeypatch.setenv(SECRET, "must not be seen by an engine")
    where, make = IMPLEMENTATIONS[request.param]
    state, folder = tmp_path / "state", tmp_path / "node"
    folder.mkdir()
    state.mkdir()
    if where == "disk":
        objects = state / "store"
        store = ArtifactStore(url=f"file:{objects}")
    else:
        objects = request.getfixturevalue("bucket") / tmp_path.name
        store = ArtifactStore(
            url=f"gs://{BUCKET}/{tmp_path.name}", cache=str(state / "cache"), cache_limit_bytes=2**30
        )
    engines, image = installed
    node = Node(store=store, folder=folder, state=state, engines=engines, image=image)
    return World(compute=make(node), store=store, node=node, objects=objects)


def test_inputs_come_as_they_were_published_and_what_the_worker_leaves_becomes_a_version(
    world: World,
) -> None:
    base = world.publish("tiny", weights="base", config="{}")
    writes = {"weights": "trained", "nested/log": "loss", "manifest.json": "{}"}
    made = world.run({"reads": ["base"], "writes": writes}, inputs={"base": base})
    assert made.result["inputs"] == {"base": {"weights": "base", "config": "{}"}}
    assert made.result["sha256"]["base"] == {file.path: file.sha256 for file in base.files}
    assert [file.path for file in made.files] == ["nested/log", "weights"]
    assert "It works." in world.lines

    assert list(world.store.versions(LINE)) == [], "a worker makes no version, whatever it writes"
    version = world.store.finish(made.draft, {"fingerprint": FINGERPRINT, "loss": 1})
    assert world.store.find(LINE, FINGERPRINT) == version
    with world.store.hold(version) as held:
        assert (held.folder / "weights").read_text() == "trained"
        assert {file.path: file.sha256 for file in version.files} == {
            path: sha256_of(held.folder / path) for path in ("nested/log", "weights")
        }
    assert len({key.split("/")[0] for key in world.sent()}) == 1, "nothing is left beside the version"


def test_a_file_that_is_reported_as_whole_is_sent_while_the_worker_goes_on(world: World) -> None:
    seen: list[float] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set() and not seen:
            if any(key.endswith("/weights") for key in world.sent()):
                seen.append(time.monotonic())
            time.sleep(0.05)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        made = world.run({"writes": {"weights": "w", "rest": "r"}, "reports": ["weights"], "seconds": 4})
    finally:
        ended.set()
        watcher.join()
    assert seen
    assert time.monotonic() - seen[0] > 1
    assert [file.path for file in made.files] == ["rest", "weights"]


def test_a_second_try_goes_on_from_the_scratch_of_the_first_until_the_line_is_cleared(world: World) -> None:
    with pytest.raises(WorkOrderError, match="'contract' failed: the row 7 is no text") as failed:
        world.run({"fails": "the row 7 is no text"})
    assert not failed.value.retriable
    written = {"writes": {"weights": "w"}}
    assert world.run(written).result["tries"] == 2
    world.compute.clear(LINE)
    world.compute.clear(LINE)
    assert world.run(written).result["tries"] == 1


def test_an_engine_that_was_killed_may_be_tried_again(world: World) -> None:
    with pytest.raises(WorkOrderError, match="killed") as killed:
        world.run({"is_killed": True})
    assert killed.value.retriable


def test_a_damaged_input_is_named_and_no_worker_is_started(world: World) -> None:
    base = world.publish("tiny", weights="base")
    [weights] = [path for path in world.objects.rglob("weights*") if path.is_file() and "tiny" in str(path)]
    weights.chmod(0o600)
    weights.write_text("evil")
    with pytest.raises(LlmAssetsError, match="weights"):
        world.run({"reads": ["base"]}, inputs={"base": base})
    assert "It works." not in world.lines


def test_a_file_that_is_not_what_the_worker_says_makes_no_version(world: World) -> None:
    if isinstance(world.store.objects.url, str) and world.store.url.startswith("file:"):
        return  # on the disk itself a file is taken in without reading it; whoever reads it finds out
    with pytest.raises(LlmAssetsError, match="changed while it was published"):
        world.run({"writes": {"weights": "w"}, "reports": ["weights"], "says": "0" * 64})


@pytest.mark.parametrize("reports", [(), ("config.json",), ("in/config.json",)])
@pytest.mark.parametrize("target", ["/proc/self/environ", "weights"])
def test_a_link_in_the_output_is_not_sent_and_makes_no_version(
    world: World, target: str, reports: tuple[str, ...]
) -> None:
    """Whoever sends has the store's credential; what a link leads to is not the worker's to publish."""
    links = {"in": "."} if "in/config.json" in reports else {"config.json": target}
    writes = {"weights": "w"} | ({"config.json": "{}"} if "in" in links else {})
    order = {"writes": writes, "links": links, "reports": list(reports)}
    with pytest.raises(LlmAssetsError, match="is a symbolic link, and none is followed here"):
        world.run(order)


def test_too_little_disk_is_said_before_anything_is_staged(world: World) -> None:
    with pytest.raises(DiskError, match="needs about"):
        world.run({}, needs=Needs(disk_bytes=2**60))
    with pytest.raises(WorkOrderError, match="needs 2 nodes"):
        world.run({}, needs=Needs(nodes=2))


def test_an_order_without_output_leaves_nothing_and_sees_nothing_of_the_platform(world: World) -> None:
    private = world.node.state / "private"
    private.touch()
    places = [str(ROOT / "pyproject.toml"), str(private)]
    made = world.run({"writes": {"weights": "w"}, "looks_for": places}, output=None)
    assert world.sent() == set()
    with pytest.raises(WorkOrderError, match="no version"):
        _ = made.draft
    seen = made.result["environment"]
    assert not [name for name in seen if name.startswith("LLM_ASSETS_") or name.endswith(("_TOKEN", "_KEY"))]
    if isinstance(world.compute, UnsharedCompute):
        assert made.result["sees"] == []


def test_what_runs_an_engine_says_what_it_is_made_of(world: World) -> None:
    assert world.compute.engine("train").lock_digest == LOCK_DIGEST
