"""Processes that outlive whoever started them, each known by a record on disk.

A record is written before the process runs (see `launcher`), names it by something that a
reused pid does not have, and holds no secret: those travel in the environment alone. Every process
leads a session of its own and has a TMPDIR of its own, removed when it is stopped.

Linux only. Not covered: a descendant that both leaves the session and loses its parent before
`stop` looks.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
import psutil

from resources.errors import LlmAssetsError
from resources.processes import launcher as process_launcher
from resources.processes.launcher import ZOMBIE_STATES, boot_id, end_file, process_identity, stat_fields
from resources.processes.temporary_folders import PREFIX, TemporaryFolderError, base_folder
from resources.waiting import WaitTimeout, wait_until

KILL_S = 10
LAUNCH_S = 60
LOCK_S = 120  # longer than a launch, which is what it is held for
END_WRITTEN_S = 5  # the watcher writes within milliseconds, on a machine that has any time for it


class ProcessError(LlmAssetsError):
    """A process could not be started or ended."""


@dataclass(frozen=True, kw_only=True)
class ProcessRecord:
    """A process as it was started. `identity` tells it from a later one with the same pid.

    `watcher` is the pid of its parent, which writes down how it ends.
    """

    name: str
    pid: int
    identity: str
    started: float
    command: tuple[str, ...]
    log: Path
    temporary_folder: Path
    attributes: dict[str, Any]
    watcher: int


@dataclass(frozen=True, kw_only=True)
class ProcessEnd:
    """How a process ended.

    `exit_code` is minus the signal's number where one killed it; `at` is in epoch seconds.
    """

    exit_code: int
    out_of_memory: bool
    at: float

    @property
    def killed(self) -> bool:
        return self.exit_code < 0

    @property
    def text(self) -> str:
        """As part of a sentence about the process."""
        if not self.killed:
            return f"it ended with exit code {self.exit_code}"
        memory = ", because the machine ran out of memory" if self.out_of_memory else ""
        return f"it was killed by {_signal_name(-self.exit_code)}{memory}"


def _signal_name(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} (signal {number})"
    except ValueError:  # a real-time signal has no name
        return f"signal {number}"


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """A running process in one look at /proc."""

    pid: int
    ticks: str
    parent: int = field(compare=False)  # changes when the parent dies
    session: int = field(compare=False)


class LocalProcesses:
    """The detached processes recorded in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(
        self,
        name: str,
        *,
        command: tuple[str, ...],
        env: Mapping[str, str],
        log: Path,
        attributes: dict[str, Any],
        holds: tuple[Path, ...] = (),
        folder: Path | None = None,
        own_network: bool = False,
    ) -> ProcessRecord:
        """Starts a process under a name that no living process has, and returns once it was exec'd.

        Args:
            holds: Files that the process keeps a shared flock on, such as the lease of a cached artifact
                (`resources/node_cache`), until it and its children are gone.
            folder: What it runs in; where this process does, if left out.
            own_network: Whether it is cut off from the network, this machine's loopback included, where the
                system lets it (`own_network_fault`).

        Raises:
            ProcessError: The name is taken, the command cannot be run, what it is to hold is gone, or that
                takes too long.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with self._changing():
            known = self.find(name)
            if known and self._members(known):
                raise ProcessError(f"{name} runs already (pid {known.pid}, log {known.log}).")
            if known:
                self._forget(known)
            record = {"name": name, "command": command, "log": str(log.absolute()), "attributes": attributes}
            order = {
                "record_file": str(self._file(name).absolute()),
                "record": record,
                "holds": [str(held.absolute()) for held in holds],
                "folder": str(folder.absolute()) if folder else None,
                "own_network": own_network,
                "temporary_base": str(_temporary_base(name)),
                "temporary_prefix": PREFIX,
            }
            self._launch(order, env)
            started = self.find(name)
        if started is None:
            raise ProcessError(f"{name} was started but its record {self._file(name)} is gone.")
        return started

    def _launch(self, order: dict[str, Any], env: Mapping[str, str]) -> None:
        name = order["record"]["name"]
        try:
            launcher = subprocess.run(
                [sys.executable, "-I", "-S", process_launcher.__file__, name],  # the name is for `ps` alone
                input=json.dumps(order),
                env=dict(env),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,  # a Ctrl-C in the terminal is not for it
                timeout=LAUNCH_S,
            )
        except subprocess.TimeoutExpired as fault:
            raise ProcessError(
                f"{name} was not started within {LAUNCH_S} s: the disk of {self.folder} or of "
                f"{order['record']['command'][0]} does not answer."
            ) from fault
        if launcher.returncode:
            raise ProcessError(f"{name} could not be started: {launcher.stderr.strip()}")

    def find(self, name: str) -> ProcessRecord | None:
        """The record of that name, of a living process or a dead one."""
        try:
            values = json.loads(self._file(name).read_text())
        except FileNotFoundError:
            return None
        paths = {"log": Path(values["log"]), "temporary_folder": Path(values["temporary_folder"])}
        return ProcessRecord(**{**values, **paths, "command": tuple(values["command"])})

    def all(self) -> tuple[ProcessRecord, ...]:
        """Every recorded process in name order, dead ones included."""
        found = (self.find(file.stem) for file in sorted(self.folder.glob("[!.]*.json")))
        return tuple(record for record in found if record)

    def alive(self, record: ProcessRecord) -> bool:
        return process_identity(record.pid) == record.identity

    def end(self, record: ProcessRecord) -> ProcessEnd | None:
        """How a process ended; None where it runs, or where its watcher did not see it.

        It did not when it was killed itself, or when the whole machine went down.
        """
        if self.alive(record):
            return None
        with contextlib.suppress(WaitTimeout):
            wait_until(
                lambda: self._end_written(record) or process_identity(record.watcher) is None,
                what=f"the end of {record.name}",
                timeout_s=END_WRITTEN_S,
                every_s=0.02,
            )
        values = self._end_written(record)
        return ProcessEnd(**values) if values else None

    def fault(self, name: str, *, what: str) -> str | None:
        """A sentence that says why a process is not running; None while it is. `what` begins the sentence."""
        record = self.find(name)
        if record is None:
            return f"{what} is not running."
        if self.alive(record):
            return None
        end = self.end(record)
        how = end.text if end else "nobody saw how it ended"
        return f"{what} is not running: {how}; its log is {record.log}."

    def _end_written(self, record: ProcessRecord) -> dict[str, Any] | None:
        try:
            values = json.loads(end_file(self._file(record.name)).read_text())
        except FileNotFoundError:
            return None
        return values if values.pop("identity") == record.identity else None

    def stop(self, name: str, *, timeout_s: float = 20) -> None:
        """Ends a process and all that it started, and forgets it. One that is gone already is fine.

        The process itself is asked first (SIGTERM), its children when it is gone, and after
        `timeout_s` seconds whatever is left is killed.

        Raises:
            ProcessError: Something cannot be killed.
        """
        record = self.find(name)
        if record is None:
            return
        with contextlib.suppress(WaitTimeout):
            self._signal_until_gone(record, signal.SIGTERM, timeout_s)
        try:
            self._signal_until_gone(record, signal.SIGKILL, KILL_S)
        except WaitTimeout as fault:
            left = ", ".join(str(seen.pid) for seen in self._members(record))
            raise ProcessError(f"{name} cannot be ended; these processes of it are left: {left}.") from fault
        with contextlib.suppress(WaitTimeout):  # it has nothing to wait for, and holds up nothing
            wait_until(
                lambda: process_identity(record.watcher) is None,
                what=f"the watcher of {name}",
                timeout_s=END_WRITTEN_S,
                every_s=0.01,
            )
        with self._changing():
            if self.find(name) == record:
                self._forget(record)

    def kill(self, record: ProcessRecord) -> None:
        """Ends a process and all that it started at once, also where it is stopped. Its record stays.

        Raises:
            WaitTimeout: Something cannot be killed.
        """
        self._signal_until_gone(record, signal.SIGKILL, KILL_S)

    def _signal_until_gone(self, record: ProcessRecord, sign: signal.Signals, timeout_s: float) -> None:
        signalled: set[_Seen] = set()
        tree: set[_Seen] = set()

        def gone() -> bool:
            tree.update(self._members(record))
            left = {seen for seen in tree if _running(seen)}
            leader = {seen for seen in left if seen.pid == record.pid}
            due = (left if sign == signal.SIGKILL or not leader else leader) - signalled
            for seen in due:
                _signal(seen, sign)
            signalled.update(due)
            return not left

        wait_until(gone, what=record.name, timeout_s=timeout_s, every_s=0.05)

    def _members(self, record: ProcessRecord) -> set[_Seen]:
        """The running processes of its session, and all descendants of those."""
        boot, _, ticks = record.identity.partition("/")
        running = {seen.pid: seen for seen in _look()}
        leader = running.get(record.pid)
        if boot != boot_id() or (leader and leader.ticks != ticks):  # the pid is another's by now
            return set()
        members = {seen for seen in running.values() if seen.session == record.pid or seen == leader}
        while more := {s for s in running.values() if running.get(s.parent) in members} - members:
            members |= more
        return members

    def _forget(self, record: ProcessRecord) -> None:
        shutil.rmtree(record.temporary_folder, ignore_errors=True)
        self._file(record.name).unlink(missing_ok=True)
        end_file(self._file(record.name)).unlink(missing_ok=True)

    def starting(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Whoever looks whether `name` runs and starts it if not does both in here, one after the other."""
        return self._alone(f".{name}.lock")

    def _changing(self) -> contextlib.AbstractContextManager[None]:
        return self._alone(".lock")

    @contextlib.contextmanager
    def _alone(self, lock_file: str) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.folder / lock_file)
        try:
            lock.acquire(timeout=LOCK_S)
        except filelock.Timeout as fault:
            raise ProcessError(
                f"Another process has held {lock.lock_file} for over {LOCK_S} s. "
                "End it (`fuser` names it), then try again."
            ) from fault
        try:
            yield
        finally:
            lock.release()

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def _temporary_base(name: str) -> Path:
    try:
        return base_folder()
    except TemporaryFolderError as error:
        raise ProcessError(f"{name} could not be started. {error}") from error


def _look() -> list[_Seen]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [seen for pid in pids if (seen := _see(pid))]


def _see(pid: int) -> _Seen | None:
    fields = stat_fields(pid)
    if fields is None or fields[0] in ZOMBIE_STATES:
        return None
    return _Seen(pid=pid, parent=int(fields[1]), session=int(fields[3]), ticks=fields[19])


def _running(seen: _Seen) -> bool:
    now = _see(seen.pid)
    return now is not None and now.ticks == seen.ticks


def _signal(seen: _Seen, sign: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(seen.pid, sign)


def require_free_port(port: int, *, what: str, setting: str) -> None:
    """Refuses a port of this machine that something listens on.

    Raises:
        ProcessError: Names the port, who holds it as far as that can be seen, and the remedy.
    """
    if not port_is_free(port):
        raise ProcessError(
            f"{what} cannot listen on port {port}: {port_holder(port)} listens there. "
            f"End that, or set {setting} to a free port."
        )


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ports in TIME_WAIT are free
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def port_holder(port: int) -> str:
    """Who listens on a port, as `name (pid 123)`; another user's process has no pid to see."""
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
            with contextlib.suppress(psutil.NoSuchProcess):
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return "another process"


def listens(record: ProcessRecord, port: int) -> bool:
    """Whether the recorded process, or one that it started, listens on that port."""
    try:
        leader = psutil.Process(record.pid)
        family = [leader, *leader.children(recursive=True)]
    except psutil.NoSuchProcess:
        return False
    return any(_listens(process, port) for process in family)


def _listens(process: psutil.Process, port: int) -> bool:
    try:
        connections = process.net_connections("tcp")
    except psutil.NoSuchProcess:
        return False
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)


def own_network_fault() -> str | None:
    """Why a process that is to have a network of its own gets none; None where it does."""
    command = [sys.executable, "-I", "-S", process_launcher.__file__, "--try-own-network"]
    tried = subprocess.run(command, capture_output=True, text=True, timeout=LAUNCH_S, check=False)
    return tried.stderr.strip() or None
