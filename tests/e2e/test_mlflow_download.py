"""A registered version's files by MLflow's own client, from a real server and a real store.

Run with `pytest -m mlflow tests/e2e/test_mlflow_download.py`.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from resources.artifact_store.artifacts import Artifact, Line
from resources.artifact_store.store import ArtifactStore
from resources.local.state import LocalState
from resources.mlflow.registry import MlflowRegistry, RegistryEntry
from resources.mlflow.server import MlflowServer
from tests.servers.ports import free_port

pytestmark = pytest.mark.mlflow

TENANT, MODEL = "team-a", "support_bot"
FILES = {
    "config.json": "{}",
    "model.safetensors": "weights" * 1000,
    "more/notes/a.txt": "a",
    "more/b.txt": "b",
}
DOWNLOAD = """
import sys, mlflow
print(mlflow.artifacts.download_artifacts(sys.argv[1], dst_path=sys.argv[2]))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    home = tmp_path_factory.mktemp("home")
    server = MlflowServer(home=home, port=free_port(), tokens=home / "tokens")
    server.start()
    server.wait_ready()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    return ArtifactStore(url=f"file:{tmp_path_factory.mktemp('store')}")


@pytest.fixture(scope="module")
def published(
    server: MlflowServer, store: ArtifactStore, tmp_path_factory: pytest.TempPathFactory
) -> Artifact:
    """A model that is in production."""
    folder = tmp_path_factory.mktemp("model") / "files"
    for path, text in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    artifact = store.publish(
        Line(collection="models", tenant=TENANT, name=MODEL), folder, {"fingerprint": "sha256:f"}
    )
    registry = MlflowRegistry(
        tracking_uri=server.url,
        state=LocalState(folder=server.home / "locks"),
        token_file=str(server.console.token_file("full")),
        promotions=str(server.home / "promotions"),
        signing_keys=str(server.home / "keys"),
    )
    told: dict[str, Any] = dict.fromkeys(
        ("base_model", "base_digest", "dataset_digest", "recipe_digest", "owner", "purpose"), "x"
    )
    entry = RegistryEntry(
        tenant=TENANT,
        model=MODEL,
        version=artifact.version,
        digest=artifact.digest,
        risk_class="limited",
        **told,
    )
    registry.promote(TENANT, MODEL, version=registry.register(entry).number, who="ann", why="a test")
    return artifact


def download(
    server: MlflowServer, uri: str, target: Path, *, store: ArtifactStore | None
) -> subprocess.CompletedProcess[str]:
    """As a notebook would, in a process of its own."""
    target.mkdir()
    apart = ("LLM_ASSETS_ROOT", "LLM_ASSETS_CATALOG", "LLM_ASSETS_STORE")
    env = {name: value for name, value in os.environ.items() if name not in apart}
    env |= {"MLFLOW_TRACKING_URI": server.url, "MLFLOW_DISABLE_TELEMETRY": "true"}
    env |= {"MLFLOW_TRACKING_TOKEN": server.console.token("read-only")}
    env |= {"LLM_ASSETS_STORE": store.url} if store else {}
    command = [sys.executable, "-c", DOWNLOAD, uri, str(target)]
    return subprocess.run(command, env=env, cwd=target, capture_output=True, text=True)


def test_a_version_is_downloaded_by_alias_number_and_file(
    server: MlflowServer, store: ArtifactStore, published: Artifact, tmp_path: Path
) -> None:
    for at, name in enumerate((f"{TENANT}.{MODEL}@production", f"{TENANT}.{MODEL}/1")):
        done = download(server, f"models:/{name}", tmp_path / str(at), store=store)
        assert done.returncode == 0, done.stderr
        folder = Path(done.stdout.strip())
        found = {
            path.relative_to(folder).as_posix(): path.read_text()
            for path in folder.rglob("*")
            if path.is_file()
        }
        assert found == FILES
    done = download(server, f"models:/{TENANT}.{MODEL}@production/more", tmp_path / "folder", store=store)
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.strip()) / "notes" / "a.txt").read_text() == "a"
    done = download(
        server, f"models:/{TENANT}.{MODEL}@production/config.json", tmp_path / "file", store=store
    )
    assert Path(done.stdout.strip()).read_text() == "{}"


def test_a_damaged_file_is_refused_and_named(
    server: MlflowServer, store: ArtifactStore, published: Artifact, tmp_path: Path
) -> None:
    file = Path(store.url.removeprefix("file:")) / published.key / "model.safetensors"
    before = file.read_bytes()
    file.chmod(0o600)
    file.write_bytes(before[:-1] + b"x")
    try:
        done = download(server, f"models:/{TENANT}.{MODEL}@production", tmp_path / "to", store=store)
    finally:
        file.write_bytes(before)
    assert done.returncode != 0
    assert "the bytes of model.safetensors are not those that were published" in done.stderr
    assert not (tmp_path / "to" / "model.safetensors").exists()


def test_without_a_store_the_error_says_what_to_set(
    server: MlflowServer, published: Artifact, tmp_path: Path
) -> None:
    done = download(server, f"models:/{TENANT}.{MODEL}@production", tmp_path / "to", store=None)
    assert done.returncode != 0
    assert "set LLM_ASSETS_STORE to the address of the artifact store" in done.stderr


def test_the_server_gives_out_no_file_of_the_store(server: MlflowServer, published: Artifact) -> None:
    answer = httpx.get(
        f"{server.url}/model-versions/get-artifact",
        params={"name": f"{TENANT}.{MODEL}", "version": "1", "path": "config.json"},
        headers=server.console.headers(),
    )
    assert answer.status_code >= 400
    assert answer.status_code != 401
    assert answer.text != FILES["config.json"]
    assert "gives out no files of the artifact store" in answer.text + server.log.read_text()
