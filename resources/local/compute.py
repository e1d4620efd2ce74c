"""Work orders on this machine: each a process of an engine's own environment, through Dagster Pipes.

    <work>/<line>/<16 hex digits>/      an order's own folder, kept until its version is made
        output/, scratch/, whole.jsonl  see `resources.work_order_files`
        order.json, messages.jsonl      what the worker is given, and what it reports (`engine_messages`)
        engine.log                      what the engine says
        tmp/                            its temporary files, by way of a short path

An order that makes no version has a folder for as long as it runs.
"""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from resources.artifact_store.artifacts import Line
from resources.artifact_store.store import ArtifactStore
from resources.disk import require_free_space
from resources.engines.errors_in_log import is_messenger, own_error
from resources.engines.installation import engine_python, installed_engine
from resources.engines.locks import EngineName, InstalledEngine
from resources.local.engine_messages import MessageFile
from resources.processes import supervisor
from resources.processes.environment import ACCELERATOR_PREFIXES, inherited
from resources.processes.log_end import last_lines
from resources.processes.order_limits import (
    HOURS_SETTING,
    MEMORY_BYTES,
    MEMORY_SETTING,
    PROCESSES,
    PROCESSES_SETTING,
    SECONDS,
)
from resources.processes.temporary_folders import TemporaryFolderError, linked_folder
from resources.seams.compute import Outcome, RunContext, WorkOrder, WorkOrderError
from resources.work_order_files import OrderFolder, Sender, held, worker_order

PASSED_ON_PREFIXES = (*ACCELERATOR_PREFIXES, "OMP_", "GLOO_")
ENGINE_LOG = "engine.log"
KILLED = 128 + signal.SIGKILL  # as the supervisor gives it
LISTENING_S = 0.2
FULL_DISK_BYTES = 64 * 2**20
LIMIT_REPORT = "limit.json"
# Dagster warns its users of what only its own Pipes and nested resources call.
OF_DAGSTERS_OWN = (
    "Function `PipesMessageReader.expected_writer_count`",
    "AssetExecutionContext.run_id",
    "InitResourceContext.dagster_run",
)
for _message in OF_DAGSTERS_OWN:
    warnings.filterwarnings("ignore", message=_message)


class LocalCompute(dg.ConfigurableResource[Any]):
    """Runs work orders as supervised processes: none outlives the run that asked for it.

    Attributes:
        work: The folder of the orders' folders.
        engines: The folder of the engines' environments.
        package: The folder of `llm_assets`, which an engine's environment does not have.
        memory_bytes: How much memory all processes of a work order may take together.
        processes: How many they may be.
        seconds: How long it may take.
    """

    store: ArtifactStore
    work: str
    engines: str
    package: str
    memory_bytes: int = MEMORY_BYTES
    processes: int = PROCESSES
    seconds: int = SECONDS

    def engine(self, name: EngineName) -> InstalledEngine:
        return installed_engine(Path(self.engines), name)

    def run(self, context: RunContext, order: WorkOrder) -> Outcome:
        """See `resources.seams.compute.Compute`."""
        say = context.log.info
        if order.needs.nodes > 1:
            raise WorkOrderError(
                f"The work order {order.worker!r} needs {order.needs.nodes} nodes; here is one."
            )
        with ExitStack() as until_sent:
            folder = until_sent.enter_context(self._folder(order))
            made = order.output.line if order.output else "no version"
            require_free_space(folder, order.needs.disk_bytes, what=f"The order {order.worker!r} for {made}")
            files = OrderFolder(root=folder)
            files.begin()
            given = worker_order(order, until_sent.enter_context(held(self.store, order, say)), files)
            if order.output is None:
                return Outcome(result=self._carried_out(context, order, given, folder))
            sender = until_sent.enter_context(Sender(self.store, order.output, files, say))
            result = self._carried_out(context, order, given, folder, sender.look)
            return Outcome(result=result, sent=sender.draft())

    def clear(self, line: Line) -> None:
        shutil.rmtree(Path(self.work) / str(line), ignore_errors=True)

    @contextmanager
    def _folder(self, order: WorkOrder) -> Iterator[Path]:
        work = Path(self.work)
        if order.output is None:
            work.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f"{order.worker}-", dir=work) as folder:
                yield Path(folder)
            return
        kept = work / str(order.output.line) / order.attempt(self.engine(order.engine))
        kept.mkdir(parents=True, exist_ok=True)
        yield kept

    def _carried_out(
        self,
        context: RunContext,
        order: WorkOrder,
        given: Mapping[str, Any],
        folder: Path,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        log = folder / ENGINE_LOG
        earlier_bytes = log.stat().st_size if log.exists() else 0
        messages = MessageFile(folder / "messages.jsonl")
        with (
            dg.open_pipes_session(
                context=context,
                extras={"order": given},
                context_injector=dg.PipesFileContextInjector(str(folder / "order.json")),
                message_reader=messages,
            ) as session,
            self._process(order, folder, session.get_bootstrap_env_vars()) as process,
        ):
            context.log.info(f"{order.worker} runs as process {process.pid}; log: {log}")
            exit_code = _wait(process, messages, meanwhile)
        for line in messages.unreadable:
            context.log.warning(f"{order.worker} reported something that is no message: {line}")
        return _result(order.worker, folder, exit_code, session.get_custom_messages(), earlier_bytes)

    @contextmanager
    def _process(
        self, order: WorkOrder, folder: Path, bootstrap: Mapping[str, str]
    ) -> Iterator[subprocess.Popen[bytes]]:
        python = engine_python(Path(self.engines), order.engine)
        memory_bytes = min(self.memory_bytes, order.needs.memory_bytes or self.memory_bytes)
        limits = {"memory_bytes": memory_bytes, "processes": self.processes, "seconds": self.seconds}
        report = folder / LIMIT_REPORT
        report.unlink(missing_ok=True)  # of an earlier try
        command = [sys.executable, "-I", "-S", supervisor.__file__]
        command += ["--limits", json.dumps(limits), str(report)]
        command += [str(python), "-m", f"llm_assets.workers.{order.worker}"]
        with _temporary_folder(order.worker, folder) as temporary:
            with (folder / ENGINE_LOG).open("ab") as log:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    cwd=folder,
                    env={**self._environment(folder, temporary), **bootstrap},
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
        return inherited(prefixes=PASSED_ON_PREFIXES) | {
            "PYTHONPATH": str(link.parent),
            "PYTHONUNBUFFERED": "1",
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(folder / "huggingface"),
            "TMPDIR": str(temporary),
            "TOKENIZERS_PARALLELISM": "false",
            "DO_NOT_TRACK": "1",
        }


@contextmanager
def _temporary_folder(worker: str, of_order: Path) -> Iterator[Path]:
    """A short path to a folder of the order, which is removed with what is left in it."""
    folder = of_order / "tmp"
    shutil.rmtree(folder, ignore_errors=True)  # of a try that was killed
    folder.mkdir()
    try:
        with linked_folder(folder) as short:
            yield short
    except TemporaryFolderError as error:
        raise WorkOrderError(f"The work order {worker!r} was not started. {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(process: subprocess.Popen[bytes], reported: MessageFile, meanwhile: Callable[[], None]) -> int:
    """The exit code, once everything that the process reported was read."""
    while True:
        exit_code = _ended_within(process, LISTENING_S)
        reported.read()
        meanwhile()
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


def _result(worker: str, folder: Path, exit_code: int, messages: Any, earlier_bytes: int) -> dict[str, Any]:
    """`earlier_bytes`: of the log, said by earlier tries of the same work."""
    for message in messages:
        if exit_code == 0 and "result" in message:
            return dict(message["result"])
    log = folder / ENGINE_LOG
    reported = next((message["failure"] for message in reversed(messages) if "failure" in message), None)
    cause = _cause(folder, exit_code, reported, _said(log, earlier_bytes))
    raise WorkOrderError(
        f"The work order {worker!r} failed: {cause}\nThe whole log is in {log}.",
        retriable=exit_code == KILLED and reported is None and _limit(folder) is None,
    )


def _cause(folder: Path, exit_code: int, reported: str | None, said: str) -> str:
    """What was reported, unless it only passes on what a process of the engine said before it died."""
    if reported is not None and not (folder / LIMIT_REPORT).is_file():
        own = own_error(said) if is_messenger(reported) else None
        return f"{own} (passed on as {reported})" if own else reported
    ended = _limit(folder) or _full_disk(folder) or _how_it_ended(exit_code)
    if own := own_error(said):
        ended += f". Its last error: {own}"
    return f"{ended}. The end of its log:\n{last_lines(said)}"


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
    if exit_code == KILLED:
        return "the engine was killed (signal 9: by someone, or because the machine ran out of memory)"
    if exit_code > 128:
        return f"the engine was ended by signal {exit_code - 128}"
    if exit_code == 0:
        return "the engine ended without a result"
    return f"the engine ended with exit code {exit_code}"
