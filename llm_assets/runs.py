"""Runs started from the command line: in this process, recorded like any other run."""

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster import DagsterRunStatus
from filelock import FileLock

from llm_assets.cancellation import canceled_when_interrupted
from llm_assets.chains import line_tags
from llm_assets.installation.settings import Settings
from llm_assets.partitions import add_tenants
from resources.private_files import close_to_others
from resources.seams.state import State

UNFINISHED = (DagsterRunStatus.STARTED, DagsterRunStatus.STARTING, DagsterRunStatus.CANCELING)
STORAGE_TURN_S = 60
IN_POSTGRESQL = """\
storage:
  postgres:
    postgres_url:
      env: LLM_ASSETS_DATABASE_URL
"""
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def prepare_dagster_home(settings: Settings) -> None:
    """Makes DAGSTER_HOME with the project's `dagster.yaml` in it and points this process at it."""
    settings.dagster_home.mkdir(parents=True, exist_ok=True)
    close_to_others(settings.home)  # made by an earlier version, or by hand
    target = settings.dagster_home / "dagster.yaml"
    text = (settings.root / "dagster.yaml").read_text() + (IN_POSTGRESQL if settings.database_url else "")
    if not target.is_file() or target.read_text() != text:
        target.write_text(text)
    os.environ["DAGSTER_HOME"] = str(settings.dagster_home)
    if settings.database_url:
        os.environ["LLM_ASSETS_DATABASE_URL"] = settings.database_url  # which Dagster's own file names
    os.environ.setdefault("LLM_ASSETS_ROOT", str(settings.root))
    os.environ.setdefault("LLM_ASSETS_CATALOG", settings.catalog_at)
    os.environ.setdefault("LLM_ASSETS_HOME", str(settings.home))


@contextmanager
def dagster_instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    prepare_dagster_home(settings)
    settings.locks.mkdir(parents=True, exist_ok=True)
    # Dagster makes its SQLite tables when it first opens them; two processes at once would fail.
    with FileLock(settings.locks / "dagster-storage.lock", timeout=STORAGE_TURN_S):
        instance = dg.DagsterInstance.get()
    with instance:
        yield instance


def new_run_id() -> str:
    return str(uuid.uuid4())


def execute_chain(
    instance: dg.DagsterInstance,
    state: State,
    job: dg.JobDefinition,
    *,
    model: str,
    tenant: str,
    tenants: Sequence[str],
    run_id: str,
    op_config: Mapping[str, Any],
    assets: Sequence[dg.AssetKey] | None = None,
) -> dg.ExecuteInProcessResult:
    """Executes the chain of one tenant (or only the `assets` named) to its end, also past a failed step.

    `tenants` are all that use the model: they become partitions, so that "missing" in the UI means missing.

    Raises:
        RunCanceled: It was interrupted.
    """
    end_abandoned_runs(instance, state)
    add_tenants(instance, model, tenants)
    with state.executing(run_id), canceled_when_interrupted(instance, run_id):
        return job.execute_in_process(
            instance=instance,
            partition_key=tenant,
            run_id=run_id,
            tags=line_tags(tenant, model),
            run_config={"ops": dict(op_config), **QUIET},
            asset_selection=assets,
            raise_on_error=False,
        )


def end_abandoned_runs(instance: dg.DagsterInstance, state: State) -> list[str]:
    """Marks runs that nobody executes any more as failed and frees their place at the accelerator."""
    unfinished = {
        run.run_id: run for run in instance.get_runs(filters=dg.RunsFilter(statuses=list(UNFINISHED)))
    }
    ended = state.abandoned(unfinished) if unfinished else []
    for run_id in ended:
        instance.report_run_failed(unfinished[run_id], "The process that executed this run is gone.")
        instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    return ended
