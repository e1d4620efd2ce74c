"""A training as an MLflow run: parameters, curves and tags, written once per fingerprint.

A run that was cut off half written is found by its fingerprint and finished. Points are written with times
counted from the run's start, so that a point sent twice is stored once.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

FINGERPRINT = re.compile(r"[A-Za-z0-9:._-]{1,128}")
METRICS_PER_REQUEST = 1000  # MLflow's limits for one batch
PARAMS_PER_REQUEST = 100


def log_run(
    client: "MlflowClient",
    experiment: str,
    *,
    fingerprint: str,
    params: Mapping[str, object],
    history: Sequence[Mapping[str, float]],
    tags: Mapping[str, str],
) -> str:
    """The id of the finished run with that fingerprint; made, or completed, where it is missing."""
    if not FINGERPRINT.fullmatch(fingerprint):
        raise ValueError(f"{fingerprint!r} is not a fingerprint.")
    experiment_id = _experiment(client, experiment)
    run = _find(client, experiment_id, fingerprint) or client.create_run(
        experiment_id,
        run_name=f"training {fingerprint.removeprefix('sha256:')[:8]}",
        tags={**tags, "fingerprint": fingerprint},
    )
    if run.info.status != "FINISHED":
        _write(client, run, params, history)
        client.set_terminated(run.info.run_id, "FINISHED")
    return run.info.run_id


def _write(
    client: "MlflowClient", run: "Run", params: Mapping[str, object], history: Sequence[Mapping[str, float]]
) -> None:
    from mlflow.entities import Param

    metrics = _points(history, run.info.start_time)
    while batch := list(islice(metrics, METRICS_PER_REQUEST)):
        client.log_batch(run.info.run_id, metrics=batch)
    rest = iter([Param(name, _text(value)) for name, value in params.items()])
    while some := list(islice(rest, PARAMS_PER_REQUEST)):
        client.log_batch(run.info.run_id, params=some)


def _points(history: Sequence[Mapping[str, float]], start_ms: int) -> Iterator["Metric"]:
    from mlflow.entities import Metric

    for row in history:
        step = int(row["step"])
        for name, value in row.items():
            if name != "step":
                yield Metric(name, float(value), start_ms + step, step)


def _find(client: "MlflowClient", experiment_id: str, fingerprint: str) -> "Run | None":
    found = client.search_runs(
        [experiment_id], f"tags.fingerprint = '{fingerprint}'", max_results=1, order_by=["start_time ASC"]
    )
    return found[0] if found else None


def _experiment(client: "MlflowClient", name: str) -> str:
    from mlflow.exceptions import MlflowException

    if known := client.get_experiment_by_name(name):
        return str(known.experiment_id)
    try:
        return client.create_experiment(name)
    except MlflowException as error:
        # Somebody else made it in this moment.
        if error.error_code == "RESOURCE_ALREADY_EXISTS" and (known := client.get_experiment_by_name(name)):
            return str(known.experiment_id)
        raise


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
