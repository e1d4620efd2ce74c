"""Where work orders run: here, as a process of an engine's own environment, through Dagster Pipes.

A work order names a module of `llm_assets.workers` and gives it a plain JSON order. Messages (progress, log
lines, the result) come back through a file (`engine_messages`); the engine's own output goes to `engine.log`
in the work order's folder. Its temporary files lie in that folder too, by way of a short path. Not covered
here: Kubernetes Jobs.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from resources.engine_messages import MessageFile
from resources.engines.errors_in_log import is_messenger, own_error
from resources.engines.installation import InstalledEngine, engine_python, installed_engine
from resources.engines.locks import EngineName
from resources.errors import LlmAssetsError
from resources.processes import supervisor
from resources.processes.order_limits import (
    HOURS_SETTING,
    MEMORY_BYTES,
    MEMORY_SETTING,
    PROCESSES,
    PROCESSES_SETTING,
    SECONDS,
)
from resources.processes.temporary_folders import TemporaryFolderError, linked_folder

PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER", "LD_LIBRARY_PATH")
PASSED_ON_PREFIXES = ("CUDA_", "NVIDIA_", "NCCL_", "OMP_", "GLOO_")
LOG_TAIL_LINES = 15
ENGINE_LOG = "engine.log"
LISTENING_S = 0.2
FULL_DISK_BYTES = 64 * 2**20
LIMIT_REPORT = "limit.json"
# Dagster warns its users of what only its own Pipes call.
OF_DAGSTERS_OWN = ("Function `PipesMessageReader.expected_writer_count`", "AssetExecutionContext.run_id")
for _message in OF_DAGSTERS_OWN:
    warnings.filterwarnings("ignore", message=_message)


Message = Mapping[str, Any]
Heard = Callable[[Message], None]


class WorkOrderError(LlmAssetsError):
    """A work order ended without its result."""


@dataclass(frozen=True, kw_only=True)
class WorkOrder:
    """One piece of an engine's work.

    `folder` is the order's own: log, messages and temporary files go there, and a second try of
    the same work finds the checkpoints of the first in it.
    """

    engine: EngineName
    worker: str
    order: Mapping[str, Any]
    folder: Path


class LocalCompute(dg.ConfigurableResource):
    """Runs work orders as supervised processes: none outlives the run that asked for it.

    Attributes:
        memory_bytes: How much memory all processes of a work order may take together.
        processes: How many they may be.
        seconds: How long it may take.
    """

    engines: str
    package: str
    memory_bytes: int = MEMORY_BYTES
    processes: int = PROCESSES
    seconds: int = SECONDS

    def engine(self, name: EngineName) -> InstalledEngine:
        """What would run the work orders of an engine. Raises EngineError when it is not installed."""
        return installed_engine(Path(self.engines), name)

    def run(
        self,
        context: dg.OpExecutionContext | dg.AssetExecutionContext,
        work: WorkOrder,
        heard: Heard = lambda message: None,
    ) -> dict[str, Any]:
        """Runs the order to its end and returns the worker's result.

        `heard` is called with each of the worker's messages while it works; should it fail, the work ends.

        Raises:
            WorkOrderError: The engine failed, was killed, went beyond a limit, or sent no result; names the
                cause and the log.
        """
        work.folder.mkdir(parents=True, exist_ok=True)
        log = work.folder / ENGINE_LOG
        earlier_bytes = log.stat().st_size if log.exists() else 0
        messages = MessageFile(work.folder / "messages.jsonl")
        with (
            dg.open_pipes_session(
                context=context,
                extras={"order": dict(work.order)},
                context_injector=dg.PipesFileContextInjector(str(work.folder / "order.json")),
                message_reader=messages,
            ) as session,
            self._process(work, session.get_bootstrap_env_vars()) as process,
        ):
            context.log.info(f"{work.worker} runs as process {process.pid}; log: {log}")
            exit_code = _wait(process, messages, session.get_custom_messages, heard)
        for line in messages.unreadable:
            context.log.warning(f"{work.worker} reported something that is no message: {line}")
        return _result(work, exit_code, session.get_custom_messages(), earlier_bytes)

    @contextmanager
    def _process(self, work: WorkOrder, bootstrap: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
        python = engine_python(Path(self.engines), work.engine)
        limits = {name: getattr(self, name) for name in ("memory_bytes", "processes", "seconds")}
        report = work.folder / LIMIT_REPORT
        report.unlink(missing_ok=True)  # of an earlier try
        command = [sys.executable, "-I", "-S", supervisor.__file__]
        command += ["--limits", json.dumps(limits), str(report)]
        command += [str(python), "-m", f"llm_assets.workers.{work.worker}"]
        with _temporary_folder(work) as temporary:
            with (work.folder / ENGINE_LOG).open("ab") as log:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    cwd=work.folder,
                    env={**self._environment(work.folder, temporary), **bootstrap},
                    start_new_session=True,
                )
            try:
                yield process
            except BaseException:
                process.send_signal(signal.SIGTERM)
                _wait_or_kill(process)
                raise
            finally:
                if process.stdin is not None:
                    process.stdin.close()

    def _environment(self, folder: Path, temporary: Path) -> dict[str, str]:
        """What an engine may see: no credentials, nothing from a network, caches of its own."""
        link = folder / "package" / "llm_assets"
        link.parent.mkdir(exist_ok=True)
        if not link.is_symlink() or link.readlink() != Path(self.package):  # made by another installation
            link.unlink(missing_ok=True)
            link.symlink_to(self.package)
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name in PASSED_ON or name.startswith(PASSED_ON_PREFIXES)
        }
        return inherited | {
            "PYTHONPATH": str(link.parent),
            "PYTHONUNBUFFERED": "1",
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(folder / "huggingface"),
            "TMPDIR": str(temporary),
            "TOKENIZERS_PARALLELISM": "false",
            "DO_NOT_TRACK": "1",
        }


@contextmanager
def _temporary_folder(work: WorkOrder) -> Iterator[Path]:
    """A short path to a folder of the order, which is removed with what is left in it."""
    folder = work.folder / "tmp"
    shutil.rmtree(folder, ignore_errors=True)  # of a try that was killed
    folder.mkdir()
    try:
        with linked_folder(folder) as short:
            yield short
    except TemporaryFolderError as error:
        raise WorkOrderError(f"The work order {work.worker!r} was not started. {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(
    process: subprocess.Popen[bytes],
    reported: MessageFile,
    messages: Callable[[], Sequence[Message]],
    heard: Heard,
) -> int:
    """The exit code, once everything that the process reported was read and heard."""
    taken = 0
    while True:
        exit_code = _ended_within(process, LISTENING_S)
        reported.read()
        new = list(messages())[taken:]
        for message in new:
            heard(message)
        taken += len(new)
        if exit_code is not None:
            return exit_code


def _ended_within(process: subprocess.Popen[bytes], timeout_s: float) -> int | None:
    try:
        return process.wait(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return None


def _wait_or_kill(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(timeout=supervisor.TERMINATION_GRACE_S + 5)
    except subprocess.TimeoutExpired:
        process.kill()  # The kernel then kills the engine, whose parent this is.
        process.wait()


def _result(work: WorkOrder, exit_code: int, messages: Any, earlier_bytes: int) -> dict[str, Any]:
    """`earlier_bytes`: of the log, said by earlier tries of the same work."""
    for message in messages:
        if exit_code == 0 and "result" in message:
            return dict(message["result"])
    log = work.folder / ENGINE_LOG
    reported = next((message["failure"] for message in reversed(messages) if "failure" in message), None)
    cause = _cause(work.folder, exit_code, reported, _said(log, earlier_bytes))
    raise WorkOrderError(f"The work order {work.worker!r} failed: {cause}\nThe whole log is in {log}.")


def _cause(folder: Path, exit_code: int, reported: str | None, said: str) -> str:
    """What was reported, unless it only passes on what a process of the engine said before it died."""
    if reported is not None and not (folder / LIMIT_REPORT).is_file():
        own = own_error(said) if is_messenger(reported) else None
        return f"{own} (passed on as {reported})" if own else reported
    ended = _limit(folder) or _full_disk(folder) or _how_it_ended(exit_code)
    if own := own_error(said):
        ended += f". Its last error: {own}"
    tail = "\n".join(said.splitlines()[-LOG_TAIL_LINES:])
    return f"{ended}. The end of its log:\n{tail}"


def _limit(folder: Path) -> str | None:
    """Which limit of work orders it was ended at."""
    report = folder / LIMIT_REPORT
    if not report.is_file():
        return None
    ended = json.loads(report.read_text())
    limit, seen = ended["limit"], ended["seen"]
    setting, used = {
        "memory_bytes": (MEMORY_SETTING, f"its processes took {seen / 2**30:.1f} GiB of memory"),
        "processes": (PROCESSES_SETTING, f"it had {seen:,} processes"),
        "seconds": (HOURS_SETTING, f"it ran for more than {seen / 3600:.1f} hours"),
    }[limit]
    return f"{used}, more than a work order may; {setting} raises that"


def _said(log: Path, earlier_bytes: int) -> str:
    if not log.is_file():
        return ""
    with log.open("rb") as stream:
        stream.seek(earlier_bytes)
        return stream.read().decode(errors="replace")


def _full_disk(folder: Path) -> str | None:
    """On a full disk a worker cannot even write its last message."""
    free = shutil.disk_usage(folder).free
    if free >= FULL_DISK_BYTES:
        return None
    return f"the disk of {folder} is full ({free // 2**20} MiB free). Free some space and run again"


def _how_it_ended(exit_code: int) -> str:
    if exit_code == 128 + signal.SIGKILL:
        return "the engine was killed (signal 9: by someone, or because the machine ran out of memory)"
    if exit_code > 128:
        return f"the engine was ended by signal {exit_code - 128}"
    if exit_code == 0:
        return "the engine ended without a result"
    return f"the engine ended with exit code {exit_code}"
