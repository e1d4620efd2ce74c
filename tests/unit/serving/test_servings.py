"""The frozen value of what is served, and its fingerprint."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from llm_assets.assets.deployments import _servings
from llm_assets.catalog.loading import load_catalog
from llm_assets.installation.profiles import profile_of
from llm_assets.installation.settings import Settings
from llm_assets.servings import VersionShare, serving_of
from resources.artifact_store.artifacts import Artifact, ArtifactError, Collection, Line
from resources.artifact_store.store import ArtifactStore
from resources.mlflow.registry import RegisteredVersion
from resources.mlflow.traffic import TrafficShare
from resources.seams.serving import WHOLE, Serving, ServingError
from tests.integration.serving.conftest import MODEL, TENANT, MakeServing, known_answer, make_serving, store

__all__ = ["make_serving", "store"]

PROJECT = Path(__file__).parents[2] / "e2e" / "project"
ADAPTER: dict[str, Any] = {
    "mode": "adapter",
    "adapter_uri": "artifact://adapters/team-a/support_bot/1",
    "adapter_digest": "sha256:a",
    "lora_rank": 12,
}


@pytest.mark.parametrize(
    ("changed", "value"),
    [
        ("digest", "sha256:other"),
        ("version", "v2"),
        ("max_model_len", 1024),
        ("max_num_seqs", 1),
        ("kv_cache_mib", 1),
        ("dtype", "float32"),
        ("device", "cuda"),
        ("engine", "another lock"),
        ("weights", "stream"),
        ("model_uri", "artifact://models/team-a/support_bot/other"),
        ("model_digest", "sha256:other"),
    ],
)
def test_every_setting_changes_the_fingerprint(make_serving: MakeServing, changed: str, value: Any) -> None:
    before = make_serving()
    assert replace(before, **{changed: value}).fingerprint != before.fingerprint


def test_an_adapter_counts_by_its_digest(make_serving: MakeServing) -> None:
    before = make_serving(**ADAPTER)
    assert replace(before, adapter_digest="sha256:b").fingerprint != before.fingerprint


def test_what_needs_no_other_server_leaves_the_fingerprint_as_it_is(make_serving: MakeServing) -> None:
    before = make_serving()
    after = replace(before, known_answers=before.known_answers * 2, weight=10, aliases=("candidate",))
    assert after.fingerprint == before.fingerprint


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"tenant": "../x"}, "the tenant name '../x' is not a DNS label"),
        ({"model": "Support Bot"}, "the model name 'Support Bot'"),
        ({"version": "a@b"}, "the version 'a@b'"),
        ({"known_answers": ()}, "no known answer"),
        ({"mode": "adapter"}, "mode adapter needs the adapter, its digest and its rank"),
        ({**ADAPTER, "mode": "merged"}, "mode merged none of them"),
        ({**ADAPTER, "lora_rank": None}, "mode adapter needs the adapter, its digest and its rank"),
    ],
)
def test_values_that_do_not_fit_are_refused(
    make_serving: MakeServing, settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ServingError, match=problem):
        make_serving(**settings)


def project(folder: Path) -> Settings:
    root = folder / "project"
    shutil.copytree(PROJECT, root)
    (root / "tiny_model").mkdir()
    return Settings(root=root, catalog=root / "catalog", home=folder / "state")


def publish(
    store: ArtifactStore, tmp_path: Path, collection: Collection, text: str, **attributes: Any
) -> Artifact:
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "model.safetensors").write_text(text)
    return store.publish(Line(collection=collection, tenant=TENANT, name=MODEL), folder, attributes)


def registered(store: ArtifactStore, tmp_path: Path, number: int) -> RegisteredVersion:
    """A version of an adapter and its merged model."""
    adapter = publish(store, tmp_path, "adapters", f"adapter {number}", recipe={})
    made_of = {"adapter_uri": adapter.uri, "adapter_digest": adapter.digest}
    merge = {"answers": [known_answer("Polaris")]}
    merged = publish(store, tmp_path, "models", f"{number}", merge=merge, **made_of)
    return RegisteredVersion(
        tenant=TENANT,
        model=MODEL,
        number=number,
        label=merged.version,
        source=merged.uri,
        digest=merged.digest,
        aliases=("candidate",),
        tags={},
    )


def of_versions(settings: Settings, store: ArtifactStore) -> Callable[[VersionShare], Serving]:
    catalog = load_catalog(settings.catalog)
    return partial(serving_of, catalog, catalog.models[MODEL], store, settings, "cpu")


def test_the_same_version_on_another_machine_has_the_same_fingerprint_and_names_no_path(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two checkouts and two state folders, no engine installed beside either; one store."""
    monkeypatch.setenv("LLM_ASSETS_STORE", store.url)
    share = TrafficShare(version=registered(store, tmp_path, 1), weight=WHOLE)
    servings = []
    for machine in ("here", "there/and/deeper"):
        monkeypatch.setenv("LLM_ASSETS_ENGINES", str(tmp_path / machine / "engines"))
        settings = project(tmp_path / machine)
        (serving,), _ = _servings(of_versions(settings, profile_of(settings).store), (share,))
        servings.append(serving)
    assert servings[0] == servings[1]
    assert servings[0].fingerprint == servings[1].fingerprint
    assert str(tmp_path) not in repr(servings)


@pytest.fixture
def shares(store: ArtifactStore, tmp_path: Path) -> tuple[TrafficShare, ...]:
    """Three versions: production with 60 %, the others with 30 and 10."""
    return tuple(
        TrafficShare(version=registered(store, tmp_path, number), weight=weight)
        for number, weight in ((1, 60), (2, 30), (3, 10))
    )


def test_every_version_is_served_with_its_weight_and_names(
    store: ArtifactStore, shares: tuple[TrafficShare, ...], tmp_path: Path
) -> None:
    servings, faults = _servings(of_versions(project(tmp_path), store), shares)
    assert [(each.digest, each.weight, each.aliases) for each in servings] == [
        (share.version.digest, share.weight, ("candidate",)) for share in shares
    ]
    assert faults == []


def test_a_version_beside_production_that_is_not_as_registered_is_named_and_production_has_its_weight(
    store: ArtifactStore, shares: tuple[TrafficShare, ...], tmp_path: Path
) -> None:
    one, two, three = shares
    other = replace(two, version=replace(two.version, digest="sha256:other"))
    servings, (fault,) = _servings(of_versions(project(tmp_path), store), (one, other, three))
    assert [each.weight for each in servings] == [90, 10]
    assert f"Version {two.version.label} is not live, production has its requests:" in fault
    assert "registered was sha256:other" in fault


def test_a_production_that_is_gone_is_an_error(
    store: ArtifactStore, shares: tuple[TrafficShare, ...], tmp_path: Path
) -> None:
    store.delete(store.get(shares[0].version.source))
    with pytest.raises(ArtifactError, match=shares[0].version.label):
        _servings(of_versions(project(tmp_path), store), shares)
