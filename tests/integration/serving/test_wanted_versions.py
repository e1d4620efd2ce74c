"""From registered versions and their shares to what has to be live, on artifacts in a real store."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from llm_assets.assets.deployments import _wanted
from llm_assets.catalog.loading import Catalog, load_catalog
from llm_assets.installation.settings import Settings
from llm_assets.servings import Shelf
from resources.artifact_store.artifacts import Artifact, ArtifactError, Line
from resources.artifact_store.store import ArtifactStore
from resources.mlflow.registry import RegisteredVersion
from resources.mlflow.traffic import TrafficShare
from tests.integration.serving.conftest import known_answer
from tests.stored import folder_of

pytestmark = pytest.mark.engine

PROJECT = Path(__file__).parents[2] / "e2e" / "project"
TENANT, MODEL = "team-a", "support_bot"


@pytest.fixture
def settings(tmp_path: Path, engines: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("LLM_ASSETS_ENGINES", str(engines))
    root = shutil.copytree(PROJECT, tmp_path / "project")
    (root / "tiny_model").mkdir()
    return Settings(root=root, catalog=root / "catalog", home=root / "home")


@pytest.fixture
def store(settings: Settings) -> ArtifactStore:
    return ArtifactStore(url=settings.store_url)


@pytest.fixture
def shelf(store: ArtifactStore) -> Iterator[Shelf]:
    with ExitStack() as held:
        yield Shelf(store, held, print)


@pytest.fixture
def catalog(settings: Settings) -> Catalog:
    return load_catalog(settings.catalog)


def publish(store: ArtifactStore, tmp_path: Path, line: Line, text: str, **attributes: Any) -> Artifact:
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "model.safetensors").write_text(text)
    return store.publish(line, folder, attributes)


def registered(store: ArtifactStore, tmp_path: Path, number: int) -> RegisteredVersion:
    adapters = Line(collection="adapters", tenant=TENANT, name=MODEL)
    adapter = publish(store, tmp_path, adapters, f"adapter {number}", recipe={})
    models = Line(collection="models", tenant=TENANT, name=MODEL)
    merge = {"answers": [known_answer("Polaris")]}
    of_adapter = {"adapter_uri": adapter.uri, "adapter_digest": adapter.digest}
    merged = publish(store, tmp_path, models, f"{number}", merge=merge, **of_adapter)
    return RegisteredVersion(
        tenant=TENANT,
        model=MODEL,
        number=number,
        label=merged.version,
        source=merged.uri,
        digest=merged.digest,
        aliases=(),
        tags={},
    )


def shares(store: ArtifactStore, tmp_path: Path) -> tuple[TrafficShare, ...]:
    """Three versions: production with 60 %, the others with 30 and 10."""
    return tuple(
        TrafficShare(version=registered(store, tmp_path, number), weight=weight)
        for number, weight in ((1, 60), (2, 30), (3, 10))
    )


def test_every_version_is_wanted_with_its_weight(
    catalog: Catalog, settings: Settings, store: ArtifactStore, shelf: Shelf, tmp_path: Path
) -> None:
    three = shares(store, tmp_path)
    wanted, faults = _wanted(catalog, catalog.models[MODEL], shelf, settings, three)
    assert [(each.serving.digest, each.weight) for each in wanted] == [
        (share.version.digest, share.weight) for share in three
    ]
    assert faults == []


def test_a_damaged_version_beside_production_is_named_and_production_has_its_weight(
    catalog: Catalog, settings: Settings, store: ArtifactStore, shelf: Shelf, tmp_path: Path
) -> None:
    three = shares(store, tmp_path)
    (folder_of(store, store.get(three[1].version.source)) / "model.safetensors").write_text("x")
    wanted, (fault,) = _wanted(catalog, catalog.models[MODEL], shelf, settings, three)
    assert [each.weight for each in wanted] == [90, 10]
    assert f"Version {three[1].version.label} is not live, production has its requests:" in fault
    assert "the bytes of model.safetensors are not those that were published" in fault


def test_a_damaged_production_is_an_error(
    catalog: Catalog, settings: Settings, store: ArtifactStore, shelf: Shelf, tmp_path: Path
) -> None:
    three = shares(store, tmp_path)
    (folder_of(store, store.get(three[0].version.source)) / "model.safetensors").write_text("x")
    with pytest.raises(ArtifactError, match=r"the bytes of model\.safetensors"):
        _wanted(catalog, catalog.models[MODEL], shelf, settings, three)


def test_weights_cannot_be_streamed_from_a_disk(
    catalog: Catalog, settings: Settings, store: ArtifactStore, shelf: Shelf, tmp_path: Path
) -> None:
    model = catalog.models[MODEL]
    streamed = model.model_copy(update={"serving": model.serving.model_copy(update={"weights": "stream"})})
    with pytest.raises(ArtifactError, match=r"lies on a disk.* set serving\.weights: disk"):
        _wanted(catalog, streamed, shelf, settings, shares(store, tmp_path))
