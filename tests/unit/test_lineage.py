"""From an asset back to its artifact, and an adapter bound to its base model."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from llm_assets.keys import DATASET, model_key
from llm_assets.lineage import LineageError, check_bound, materialized
from resources.artifact_store.artifacts import Artifact, Line
from resources.artifact_store.store import ArtifactStore

KEY = model_key("support_bot", DATASET)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(url=f"file:{tmp_path}/store")


def publish(store: ArtifactStore, tmp_path: Path, tenant: str, **attributes: str) -> Artifact:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text(tenant)
    line = Line(collection="datasets", tenant=tenant, name="support_bot")
    return store.publish(line, tmp_path / "folder", attributes)


def record(instance: dg.DagsterInstance, tenant: str, uri: str) -> None:
    event = dg.AssetMaterialization(asset_key=KEY, partition=tenant, metadata={"dagster/uri": uri})
    instance.report_runless_asset_event(event)


def test_each_tenant_has_its_own_newest_artifact(
    instance: dg.DagsterInstance, store: ArtifactStore, tmp_path: Path
) -> None:
    mine = publish(store, tmp_path, "team-a")
    others = publish(store, tmp_path, "team-b")
    record(instance, "team-a", mine.uri)
    record(instance, "team-b", others.uri)
    assert materialized(instance, store, KEY, "team-a") == mine
    assert materialized(instance, store, KEY, "team-b") == others


def test_what_was_never_materialized_is_named(instance: dg.DagsterInstance, store: ArtifactStore) -> None:
    with pytest.raises(LineageError, match="support_bot/dataset of team-a was never materialized"):
        materialized(instance, store, KEY, "team-a")


def test_an_artifact_that_is_gone_is_named(instance: dg.DagsterInstance, store: ArtifactStore) -> None:
    record(instance, "team-a", "artifact://datasets/team-a/support_bot/20260101T000000Z-00000000")
    with pytest.raises(
        LineageError, match=r"is not in the store: .*20260101T000000Z-00000000 was never published"
    ):
        materialized(instance, store, KEY, "team-a")


def test_an_adapter_is_refused_on_another_base_model(store: ArtifactStore, tmp_path: Path) -> None:
    base = publish(store, tmp_path, "one")
    other = publish(store, tmp_path, "two")
    adapter = publish(store, tmp_path, "three", base_digest=base.digest)
    check_bound(adapter, base)
    with pytest.raises(
        LineageError, match=f"trained on the base model {base.digest}, but .* is {other.digest}"
    ):
        check_bound(adapter, other)
