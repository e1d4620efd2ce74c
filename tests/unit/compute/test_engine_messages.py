"""What a worker reports reaches its run, whenever it is written and however it is cut into pieces."""

import itertools
import json
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from llm_assets.runs import QUIET
from resources.artifact_store.store import ArtifactStore
from resources.local.compute import LocalCompute
from resources.seams.compute import WorkOrder, WorkOrderError

# Writes what the order holds, piece by piece, and is gone at once. It does so without dagster_pipes, whose
# import takes longer than the rest.
WORKER = """
import base64, json, os, time, zlib

def of(name):
    return json.loads(zlib.decompress(base64.b64decode(os.environ[name])))

order = json.load(open(of("DAGSTER_PIPES_CONTEXT")["path"]))["extras"]["order"]["params"]
out = os.open(of("DAGSTER_PIPES_MESSAGES")["path"], os.O_WRONLY | os.O_APPEND)
for piece in order["pieces"]:
    os.write(out, piece.encode())
    time.sleep(order["pause_s"])
os._exit(0)
"""
LONG = "x" * 100_000  # more than one page of a file, and more than any buffer


def line(method: str, params: Any) -> str:
    message = {"__dagster_pipes_version": "0.1", "method": method, "params": params}
    return json.dumps(message) + "\n"


def reported(payload: dict[str, Any]) -> str:
    return line("report_custom_message", {"payload": payload})


@pytest.fixture
def compute(tmp_path: Path) -> LocalCompute:
    """Its engine is this Python, and its only worker the one above."""
    python = tmp_path / "engines" / "train" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    python.chmod(stat.S_IRWXU)
    workers = tmp_path / "package" / "workers"
    workers.mkdir(parents=True)
    for name in ("package/__init__.py", "package/workers/__init__.py"):
        (tmp_path / name).touch()
    (workers / "speaker.py").write_text(WORKER)
    return LocalCompute(
        store=ArtifactStore(url=f"file:{tmp_path / 'store'}"),
        work=str(tmp_path / "work"),
        engines=str(tmp_path / "engines"),
        package=str(tmp_path / "package"),
    )


@dataclass(frozen=True, kw_only=True)
class Run:
    """The result of each try, and what the run's log says."""

    results: list[dict[str, Any]]
    lines: list[str]


def carried_out(compute: LocalCompute, *pieces: str, pause_s: float = 0, times: int = 1) -> Run:
    params = {"pieces": pieces, "pause_s": pause_s}
    order = WorkOrder(engine="train", worker="speaker", inputs={}, params=params)

    @dg.op
    def speak(context: dg.OpExecutionContext) -> list[dict[str, Any]]:
        return [dict(compute.run(context, order).result) for _ in range(times)]

    @dg.job
    def orders() -> None:
        speak()

    with dg.DagsterInstance.ephemeral() as instance:
        done = orders.execute_in_process(instance=instance, run_config=QUIET)
        lines = [entry.user_message for entry in instance.all_logs(done.run_id)]
        return Run(results=done.output_for_node("speak"), lines=lines)


OPENED, CLOSED = line("opened", {"extras": {}}), line("closed", {})
DONE = {"result": {"steps": 4, "said": LONG}}


@pytest.mark.parametrize("times", [20, pytest.param(1_000, marks=pytest.mark.long)])
def test_a_result_that_is_written_in_the_last_instant_is_read(compute: LocalCompute, times: int) -> None:
    said = OPENED + reported({"progress": "a"}) + reported(DONE) + CLOSED
    assert carried_out(compute, said, times=times).results == [DONE["result"]] * times


def test_a_message_that_comes_in_pieces_is_one_message(compute: LocalCompute) -> None:
    """Longer ones reach the file in several writes, and somebody reads in between."""
    text = OPENED + reported(DONE) + CLOSED
    cuts = [0, 10, len(OPENED), len(OPENED) + 40, len(text) // 2, len(text) - 3, len(text)]
    pieces = [text[start:end] for start, end in itertools.pairwise(cuts)]
    outcome = carried_out(compute, *pieces, pause_s=0.3)
    assert outcome.results == [DONE["result"]]


def test_what_is_no_message_is_said_and_hides_no_message(compute: LocalCompute) -> None:
    outcome = carried_out(compute, OPENED, '{"half\n', reported(DONE), CLOSED)
    assert outcome.results == [DONE["result"]]
    assert 'speaker reported something that is no message: {"half' in outcome.lines


def test_a_worker_that_says_nothing_ended_without_a_result(compute: LocalCompute) -> None:
    with pytest.raises(WorkOrderError, match="'speaker' failed: the engine ended without a result"):
        carried_out(compute, OPENED, CLOSED)
