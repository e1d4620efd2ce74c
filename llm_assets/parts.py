"""The parts of an installation as people name them, and where each writes its log."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from llm_assets.installation.settings import Settings
from llm_assets.stack import UI
from resources.gateway.envoy import NAME as GATEWAY
from resources.local.compute import ENGINE_LOG
from resources.local.serving.servers import KIND as VLLM
from resources.mlflow.server import NAME as MLFLOW
from resources.processes.local_processes import ProcessRecord

RUN_LOG = "output.log"
"""What a run from the command line wrote outside of its steps, below Dagster's storage of that run."""
DIGEST = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, kw_only=True)
class PartLog:
    """A part's log: of what ran last where there are several."""

    part: str
    path: Path


def part_of(record: ProcessRecord) -> str:
    """Which part of the local stack a process belongs to."""
    if record.attributes.get("kind") == VLLM:
        return f"vLLM of {record.attributes['tenant']}/{record.attributes['model']}"
    names = {UI: "the Dagster UI", MLFLOW: "MLflow"}
    return "the gateway" if record.name.startswith(GATEWAY) else names.get(record.name, record.name)


def logs(settings: Settings) -> Iterator[PartLog]:
    """Every log there is, by the name that `llm-assets logs` takes; of several of one name the newest."""
    fixed = {
        "gateway": settings.gateway / "envoy.log",
        "keeper": settings.gateway / "keeper.log",
        "collector": settings.gateway / "collector.log",
        "mlflow": settings.home / "mlflow" / "server.log",
        "ui": settings.dagster_home / "ui.log",
        "daemon": settings.dagster_home / "ui.log",  # `dagster dev` is both
    }
    yield from (PartLog(part=part, path=path) for part, path in fixed.items() if path.is_file())
    runs = settings.dagster_home / "storage"
    yield from _newest("run", dict.fromkeys(runs.glob(f"*/{RUN_LOG}"), ""))
    serving = settings.home / "serving"
    yield from _newest("vllm", {path: _line(path, serving) for path in serving.glob("*/*/logs/*.log")})
    orders = settings.work.glob(f"**/{ENGINE_LOG}")
    yield from _newest("engine", {path: _line(path, settings.work) for path in orders})


def _newest(kind: str, files: Mapping[Path, str]) -> Iterator[PartLog]:
    """`kind` is the newest of all, `kind:name` the newest of each name."""
    by_age = sorted(files, key=lambda path: path.stat().st_mtime)
    newest = {f"{kind}:{files[path]}": path for path in by_age if files[path]}
    if by_age:
        yield PartLog(part=kind, path=by_age[-1])
    yield from (PartLog(part=part, path=path) for part, path in sorted(newest.items()))


def _line(path: Path, folder: Path) -> str:
    """The tenant and model (or the base model) that a log below `folder` is of; no digests, no file names."""
    names = path.relative_to(folder).parts[:-1]
    return "/".join(name for name in names if name != "logs" and not DIGEST.fullmatch(name))
