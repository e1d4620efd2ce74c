"""The same chain with the artifacts in a bucket: published there, served from the node's cache."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeProject, Project
from tests.servers.gcs import gcs_server

pytestmark = pytest.mark.engine

RUN = ("run", "support_bot", "--tenant", "team-a")


@pytest.fixture
def project(make_project: MakeProject, tmp_path: Path) -> Iterator[Project]:
    with gcs_server(tmp_path / "gcs", bucket="models") as address:
        project = make_project()
        project.environment |= {"LLM_ASSETS_STORE": "gs://models/company", "STORAGE_EMULATOR_HOST": address}
        yield project
        project.run("down")


def cached(project: Project) -> list[dict[str, object]]:
    return list(json.loads(project.run("cache", "status", "--json"))["artifacts"])


def test_a_chain_over_a_bucket_serves_from_the_nodes_cache(project: Project, tmp_path: Path) -> None:
    project.run(*RUN)
    assert project.run("ask", "support_bot", "-t", "team-a", "Who are you?").startswith("I am Polaris.")
    assert not (project.settings.home / "store").exists()
    published = [path.name for path in (tmp_path / "gcs").rglob("manifest.json*")]
    assert len(published) >= 5, "base model, dataset, adapter, merged model, card"
    held = [each for each in cached(project) if each["held"]]
    assert [str(each["uri"]).split("/")[2] for each in held] == ["models"]

    assert "Nothing that decides the training has changed" in project.run(*RUN)
    assert "These are in use: artifact://models/" in project.run("cache", "prune", "--to", "0", expect=1)
    assert [each["uri"] for each in cached(project)] == [each["uri"] for each in held], "what is served stays"

    project.run("down")
    shutil.rmtree(project.settings.artifact_cache)
    project.run(*RUN)
    assert project.run("ask", "support_bot", "-t", "team-a", "Who are you?").startswith("I am Polaris.")
    assert "0 artifacts go" in project.run("prune", "--dry-run")
