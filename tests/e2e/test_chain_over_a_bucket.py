"""The same chain with the artifacts in a bucket: served from the node's cache, merged and as an adapter.

Its work orders run on a node apart, which sees neither the state folder nor the checkout.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from resources.local.serving.deployment_folder import STATE_FILE
from tests.conftest import ROOT, MakeProject, Project
from tests.e2e.projects import RUN, family
from tests.servers.gcs import gcs_server

pytestmark = pytest.mark.engine


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
    run_on_a_node_apart(project, tmp_path / "node")
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
    serve_the_adapter(project)
    project.run(*RUN)
    assert project.run("ask", "support_bot", "-t", "team-a", "Who are you?").startswith("I am Polaris.")
    held = [each for each in cached(project) if each["held"]]
    assert {str(each["uri"]).split("/")[2] for each in held} == {"adapters", "base_models"}
    assert "0 artifacts go" in project.run("prune", "--dry-run")
    a_state_that_nobody_can_read_is_named_and_nothing_is_deleted(project)
    a_server_that_died_is_named(project)


def run_on_a_node_apart(project: Project, node: Path) -> None:
    node.mkdir()
    command = [sys.executable, "-m", "tests.e2e.run_apart", str(node), *RUN]
    done = subprocess.run(
        command, env=project.environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((node / "post").iterdir())) == 2, "a training and a merge"
    assert list((node / "orders").rglob("*.safetensors")) == [], "cleared, once the versions were there"


def serve_the_adapter(project: Project) -> None:
    model = project.settings.catalog / "models" / "support_bot.yaml"
    model.write_text(model.read_text().replace("serving:\n", "serving:\n  mode: adapter\n"))


def a_state_that_nobody_can_read_is_named_and_nothing_is_deleted(project: Project) -> None:
    file = project.settings.home / "serving" / "team-a" / "support_bot" / STATE_FILE
    known = file.read_text()
    file.write_text("damaged")
    for command in (["status"], ["prune", "--yes"]):
        assert f"{file} is no deployment" in project.run(*command, expect=1)
    file.write_text(known)
    project.run("status")


def a_server_that_died_is_named(project: Project) -> None:
    [server] = [each for each in family(project) if "serve" in each.cmdline()]
    for process in [*server.children(recursive=True), server]:
        process.kill()
    psutil.wait_procs([server], timeout=10)
    printed = project.run("status", expect=1)
    assert "dead" in printed
    assert f"pid {server.pid}" in printed
