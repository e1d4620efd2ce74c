"""From an asset back to its artifact, and an adapter bound to its base model."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from llm_assets import lineage
from llm_assets.keys import (
    BASE_MODELS,
    DATASET,
    LORA_ADAPTER,
    MERGED_MODEL,
    MODEL_CARD,
    base_model_key,
    model_key,
)
from llm_assets.lineage import DATA_VERSION_TAG, LineageError, check_bound, materialized, materialized_for
from llm_assets.made_from import Parent, parent_of
from llm_assets.presentation import artifact_metadata
from resources.artifact_store.artifacts import Artifact, ArtifactError, Collection, Line
from resources.artifact_store.store import ArtifactStore

KEY = model_key("support_bot", DATASET)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(url=f"file:{tmp_path}/store")


ASSETS: dict[dg.AssetKey, Collection] = {
    model_key("support_bot", DATASET): "datasets",
    model_key("support_bot", LORA_ADAPTER): "adapters",
    model_key("support_bot", MERGED_MODEL): "models",
    model_key("support_bot", MODEL_CARD): "cards",
    base_model_key("support_bot"): "base_models",
}
# Every place where the value of an event's metadata or tags is taken.
READERS = {"lineage.py", "outdated_recipes.py", "sensors/changes.py"}


def publish(
    store: ArtifactStore, tmp_path: Path, tenant: str | None, collection: Any = "datasets", **attributes: str
) -> Artifact:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text(f"{collection} {tenant} {attributes}")
    line = Line(collection=collection, tenant=tenant, name="support_bot")
    return store.publish(line, tmp_path / "folder", attributes)


def record(
    instance: dg.DagsterInstance,
    tenant: str | None,
    artifact: Artifact,
    key: dg.AssetKey = KEY,
    *,
    version: str | None = None,
    **metadata: str,
) -> None:
    """What a run says of an asset; `metadata` and `version` are what somebody reports instead."""
    event = dg.AssetMaterialization(
        asset_key=key,
        partition=tenant,
        metadata={**artifact_metadata(artifact), "dagster/uri": artifact.uri, **metadata},
        tags={DATA_VERSION_TAG: version or artifact.digest},
    )
    instance.report_runless_asset_event(event)


def tenant_of(key: dg.AssetKey, tenant: str) -> str | None:
    return None if key.path[0] == BASE_MODELS else tenant


def test_each_tenant_has_its_own_newest_artifact(
    instance: dg.DagsterInstance, store: ArtifactStore, tmp_path: Path
) -> None:
    mine = publish(store, tmp_path, "team-a")
    others = publish(store, tmp_path, "team-b")
    record(instance, "team-a", mine)
    record(instance, "team-b", others)
    assert materialized(instance, store, KEY, "team-a") == mine
    assert materialized(instance, store, KEY, "team-b") == others


@pytest.mark.parametrize("key", ASSETS, ids=lambda key: key.to_user_string())
def test_what_is_reported_of_an_asset_is_used_only_where_it_is_its_own(
    instance: dg.DagsterInstance, store: ArtifactStore, tmp_path: Path, key: dg.AssetKey
) -> None:
    tenant = tenant_of(key, "team-b")
    own = publish(store, tmp_path, tenant, ASSETS[key])
    foreign = [
        publish(store, tmp_path, tenant_of(other, owner), collection, made="elsewhere")
        for other, collection in ASSETS.items()
        for owner in ("team-a", "team-b")
        if (collection, tenant_of(other, owner)) != (ASSETS[key], tenant)
    ]
    other_name = Line(collection=ASSETS[key], tenant=tenant, name="faq_bot")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("another model")
    for artifact in (*foreign, store.publish(other_name, tmp_path / "folder", {})):
        record(instance, tenant, artifact, key)
        with pytest.raises(LineageError, match=rf"{artifact.uri}, which is not of {own.line}\. No run"):
            materialized(instance, store, key, tenant)
        for name in artifact_metadata(artifact):  # and only one value is another's
            value = str(artifact_metadata(artifact)[name].value)
            record(instance, tenant, own, key, **{name: value})
            if name == "dagster/uri":
                with pytest.raises(LineageError, match="No run of this asset says so"):
                    materialized(instance, store, key, tenant)
            else:
                assert materialized(instance, store, key, tenant) == own
        record(instance, tenant, own, key, version=artifact.digest)
        with pytest.raises(LineageError, match=f"has the data version {artifact.digest}, but {own.uri}"):
            materialized(instance, store, key, tenant)
    for nothing in (
        "",
        "None",
        "artifact://",
        "file:/etc/passwd",
        f"{own.uri}/../../../team-a/support_bot/1",
    ):
        record(instance, tenant, own, key, **{"dagster/uri": nothing})
        with pytest.raises(LineageError, match="No run of this asset says so"):
            materialized(instance, store, key, tenant)
    record(instance, tenant, own, key)
    assert materialized(instance, store, key, tenant) == own


def test_an_event_without_a_data_version_is_not_used(
    instance: dg.DagsterInstance, store: ArtifactStore, tmp_path: Path
) -> None:
    mine = publish(store, tmp_path, "team-a")
    event = dg.AssetMaterialization(asset_key=KEY, partition="team-a", metadata={"dagster/uri": mine.uri})
    instance.report_runless_asset_event(event)
    with pytest.raises(LineageError, match="has the data version None"):
        materialized(instance, store, KEY, "team-a")


def test_no_other_module_takes_a_value_from_an_event() -> None:
    package = Path(lineage.__file__).parent
    taken = re.compile(
        r"(?<!table\.schema)\.metadata(\.get\(|\[)|asset_materialization\b|asset_observation\b"
    )
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "workers" not in path.parts and taken.search(path.read_text())
    }
    assert found == READERS, "a new reader checks with `names_its_own` or `materialized`, and is named here"


def test_what_was_never_materialized_is_named(instance: dg.DagsterInstance, store: ArtifactStore) -> None:
    with pytest.raises(LineageError, match="support_bot/dataset of team-a was never materialized"):
        materialized(instance, store, KEY, "team-a")


def test_an_artifact_that_is_gone_is_named(
    instance: dg.DagsterInstance, store: ArtifactStore, tmp_path: Path
) -> None:
    gone = publish(store, tmp_path, "team-a")
    record(instance, "team-a", gone)
    store.delete(gone)
    with pytest.raises(LineageError, match=rf"is not in the store: .*{gone.version} was never published"):
        materialized(instance, store, KEY, "team-a")


def test_a_run_goes_on_with_what_it_made_itself_though_another_made_one_since(
    instance: dg.DagsterInstance, store: ArtifactStore, tmp_path: Path
) -> None:
    own, others = (publish(store, tmp_path, "team-a", made_by=who) for who in ("this run", "another"))
    partitions = dg.StaticPartitionsDefinition(["team-a"])
    taken: list[Artifact] = []

    @dg.asset(key=KEY, partitions_def=partitions)
    def made(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        version = dg.DataVersion(own.digest)
        return dg.MaterializeResult(data_version=version, metadata=artifact_metadata(own))

    @dg.asset(deps=[KEY], partitions_def=partitions)
    def takes(context: dg.AssetExecutionContext) -> None:
        record(context.instance, "team-a", others)
        taken.append(materialized_for(context, store, KEY, "team-a"))

    dg.materialize([made, takes], partition_key="team-a", instance=instance)
    dg.materialize([takes], partition_key="team-a", instance=instance)
    assert taken == [own, others]


PARENTS: dict[Parent, tuple[str, str | None]] = {
    "adapter": ("adapters", "team-a"),
    "dataset": ("datasets", "team-a"),
    "base": ("base_models", None),
}


@pytest.mark.parametrize("parent", PARENTS)
def test_a_manifest_that_names_another_parent_than_it_can_have_is_refused(
    store: ArtifactStore, tmp_path: Path, parent: Parent
) -> None:
    collection, tenant = PARENTS[parent]
    right = publish(store, tmp_path, tenant, collection)

    def made(uri: str, digest: str) -> Artifact:
        attributes = {f"{parent}_uri": uri, f"{parent}_digest": digest}
        return publish(store, tmp_path, "team-a", "models", **attributes)

    assert parent_of(store.get, made(right.uri, right.digest), parent) == right
    with pytest.raises(ArtifactError, match=f"as sha256:0, which is {right.digest} now"):
        parent_of(store.get, made(right.uri, "sha256:0"), parent)
    for other, (others, owner) in PARENTS.items():
        wrong = publish(store, tmp_path, owner and "team-b", others, made="elsewhere")
        if other == parent == "base":
            continue
        with pytest.raises(ArtifactError, match=f"says that its {parent} is {wrong.uri}, which is none"):
            parent_of(store.get, made(wrong.uri, wrong.digest), parent)


def test_an_adapter_is_refused_on_another_base_model(store: ArtifactStore, tmp_path: Path) -> None:
    base = publish(store, tmp_path, "one")
    other = publish(store, tmp_path, "two")
    adapter = publish(store, tmp_path, "three", base_digest=base.digest)
    check_bound(adapter, base)
    with pytest.raises(
        LineageError, match=f"trained on the base model {base.digest}, but .* is {other.digest}"
    ):
        check_bound(adapter, other)
