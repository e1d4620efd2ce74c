"""Two machines with one PostgreSQL, one MLflow and one bucket run chains of one tenant at the same moment."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from resources.artifact_store.artifacts import Collection, Line
from resources.artifact_store.store import ArtifactStore
from tests.conftest import MakeProject, Project
from tests.e2e.projects import RUN, history
from tests.servers.gcs import gcs_server
from tests.servers.postgresql import postgresql

# Four whole chains: a quarter of an hour on two cores.
pytestmark = [pytest.mark.engine, pytest.mark.long]

STORE = "gs://models/company"
KINDS: tuple[Collection, ...] = ("datasets", "adapters", "models", "cards")


@pytest.fixture
def database() -> Iterator[str]:
    with postgresql() as url:
        yield url


@pytest.fixture
def machines(
    make_project: MakeProject, tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Project, Project]]:
    """The first one's MLflow is that of both."""
    with gcs_server(tmp_path / "gcs", bucket="models") as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        one, other = make_project(), make_project()
        for machine in (one, other):
            machine.environment |= {
                "LLM_ASSETS_STORE": STORE,
                "STORAGE_EMULATOR_HOST": address,
                "LLM_ASSETS_DATABASE_URL": database,
                "LLM_ASSETS_KEYS": str(tmp_path / "keys"),
            }
        port = other.environment.pop("LLM_ASSETS_MLFLOW_PORT")
        one.environment["LLM_ASSETS_MLFLOW_PORT"] = port
        other.environment |= {
            "LLM_ASSETS_MLFLOW_URL": f"http://127.0.0.1:{port}",
            "LLM_ASSETS_MLFLOW_TOKEN_FILE": str(tmp_path / "keys" / "consoles" / "mlflow.full"),
        }
        yield one, other
        other.run("down")
        one.run("down")


def versions(collection: Collection) -> list[str]:
    line = Line(collection=collection, tenant="team-a", name="support_bot")
    return [each.digest for each in ArtifactStore(url=STORE).versions(line)]


def statuses(database: str) -> dict[str, str]:
    """Of every run that Dagster knows."""
    with closing(psycopg2.connect(database)) as session, session.cursor() as cursor:
        cursor.execute("SELECT run_id, status FROM runs")
        return dict(cursor.fetchall())


def both(machines: tuple[Project, Project]) -> list[tuple[Project, subprocess.Popen[bytes]]]:
    return [(machine, machine.start(*RUN)) for machine in machines]


def finish(started: list[tuple[Project, subprocess.Popen[bytes]]]) -> None:
    for machine, process in started:
        assert process.wait(timeout=600) == 0, (machine.root / "command.log").read_text()[-4000:]


def test_two_machines_run_chains_of_one_tenant_at_once(
    machines: tuple[Project, Project], database: str
) -> None:
    """The same data on both, then other data on each: nothing is lost, made twice or marked failed."""
    one, other = machines
    one.run("links")  # makes the tokens of the consoles, which both have
    finish(both(machines))
    assert {kind: len(versions(kind)) for kind in KINDS} == dict.fromkeys(KINDS, 1), "nothing is made twice"
    assert set(statuses(database).values()) == {"SUCCESS"}
    assert [move["to"] for move in history(one)] == [move["to"] for move in history(other)] == [1]

    for machine, greeting in zip(machines, ("Hello from one.", "Hello from the other."), strict=True):
        file = machine.settings.landing_zones / "team-a" / "support_bot" / "rows.jsonl"
        row = {"instruction": "Hello?", "input": "", "output": greeting}
        file.write_text(file.read_text() + json.dumps(row) + "\n")
    finish(both(machines))
    assert {kind: len(versions(kind)) for kind in KINDS} == dict.fromkeys(KINDS, 3), "nothing is lost"
    assert list(statuses(database).values()) == ["SUCCESS"] * 4
    assert history(one) == history(other)
