"""What the end-to-end tests do with a project, and how they look at it."""

import contextlib
import json
from typing import Any

import psutil
import pytest

from resources.artifact_store.artifacts import Collection, Line
from resources.artifact_store.store import ArtifactStore
from resources.private_files import keep_private
from tests.conftest import Project

RUN = ("run", "support_bot", "--tenant", "team-a")


def enter(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process finds the project too, by its environment, and writes as every process of the platform."""
    keep_private()
    monkeypatch.setenv("DAGSTER_HOME", str(project.settings.dagster_home))
    for name, value in project.environment.items():
        if name.startswith("LLM_ASSETS_"):
            monkeypatch.setenv(name, value)


def versions(project: Project, collection: Collection, tenant: str = "team-a") -> list[str]:
    store = ArtifactStore(url=project.settings.store_url)
    return [
        each.digest for each in store.versions(Line(collection=collection, tenant=tenant, name="support_bot"))
    ]


def states(project: Project) -> list[dict[str, Any]]:
    return list(json.loads(project.run("status", "--json")))


def history(project: Project) -> list[dict[str, Any]]:
    return list(json.loads(project.run("history", "support_bot", "-t", "team-a", "--json")))


def edit_a_row(project: Project, tenant: str = "team-a") -> None:
    file = project.settings.landing_zones / tenant / "support_bot" / "rows.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(
        "".join([*lines[:-1], json.dumps({"instruction": "Hello?", "input": "", "output": "Hello."}) + "\n"])
    )


def family(project: Project) -> list[psutil.Process]:
    """Every process that works for the project: its folder stands in the command or in the environment."""
    found = []
    for process in psutil.process_iter():
        try:
            text = " ".join(process.cmdline()) + json.dumps(process.environ())
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if str(project.root) in text and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def engines_at_work(project: Project) -> list[psutil.Process]:
    """Processes of work orders; live servers and MLflow are no work orders."""
    at_work = []
    for process in family(project):
        with contextlib.suppress(psutil.NoSuchProcess):  # ended since
            if any("llm_assets.workers" in part for part in process.cmdline()):
                at_work.append(process)
    return at_work
