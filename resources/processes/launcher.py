"""Starts one detached process, recorded before its first instruction runs.

`LocalProcesses` runs this file as a script (`python -I -S launcher.py NAME`) with an order as JSON on
standard input. The process that is to become the server writes its own record and only
then calls exec, so no kill of the starter, at any moment, leaves a server that nobody knows of. It
is a script of its own because code between fork and exec is not safe in a process with threads.
Standard library only. Linux only: a process is told from a later one with the same pid by /proc.
"""

import fcntl
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ZOMBIE_STATES = ("Z", "X")
CLONE_NEWUSER, CLONE_NEWNET = 0x1000_0000, 0x4000_0000  # linux/sched.h
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # netdevice(7)
MEMORY_LOOK_S = 2.0  # a kill for want of memory is told from another by the kernel's count just before


def process_identity(pid: int) -> str | None:
    """What no other process ever has: the machine's boot and the clock tick the process started at.

    Unlike a start time in seconds it does not move when the machine's clock is set. None when the
    process is gone or a zombie.
    """
    fields = stat_fields(pid)
    if fields is None or fields[0] in ZOMBIE_STATES:
        return None
    return f"{boot_id()}/{fields[19]}"


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def stat_fields(pid: int) -> list[str] | None:
    """/proc/PID/stat from the state on (proc_pid_stat(5), field 3): state, parent, group and so on."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2 :].split()


def launch(order: dict[str, Any]) -> str:
    """Starts the order's command and gives back why that failed, "" where it did not."""
    os.umask(0o077)  # whoever asked may have another one; see resources/private_files.py
    read_end, write_end = os.pipe()  # closed by a successful exec, so the read ends then
    if os.fork() == 0:
        os.close(read_end)
        _watch(order, write_end)
    os.close(write_end)
    with os.fdopen(read_end) as fault:
        return fault.read()


def _watch(order: dict[str, Any], write_end: int) -> None:
    """Starts the ordered process as a child, waits for its end and writes that down. Never returns."""
    os.setsid()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        _become(order, write_end)
    os.close(write_end)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    os.chdir("/")
    killed_before = _killed_for_memory()
    while (end := os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG)) is None:
        killed_before = _killed_for_memory()
        signal.sigtimedwait([signal.SIGCHLD], MEMORY_LOOK_S)
    code = end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
    out_of_memory = code == -signal.SIGKILL and _killed_for_memory() > killed_before
    # Not reaped before, so the pid is still its own.
    _write_end(Path(order["record_file"]), child, {"exit_code": code, "out_of_memory": out_of_memory})
    os._exit(0)


def _killed_for_memory() -> int:
    """How many processes the kernel has killed for want of memory since it booted (proc_vmstat(5))."""
    lines = Path("/proc/vmstat").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _write_end(record_file: Path, pid: int, end: dict[str, Any]) -> None:
    """Beside the record, unless that is another process's by now or was forgotten."""
    try:
        record = json.loads(record_file.read_text())
    except FileNotFoundError:
        return
    if record["pid"] != pid:
        return
    file, draft = end_file(record_file), record_file.with_name(f".{record_file.name}.{os.getpid()}")
    draft.write_text(json.dumps({**end, "identity": record["identity"], "at": time.time()}))
    draft.rename(file)
    if not record_file.exists():  # it was forgotten meanwhile
        file.unlink(missing_ok=True)


def end_file(record_file: Path) -> Path:
    return record_file.with_suffix(".ended")


def _become(order: dict[str, Any], write_end: int) -> None:
    """Turns this process into the ordered one. Never returns."""
    try:
        os.setsid()
        for ending in (signal.SIGINT, signal.SIGTERM):  # whoever asked may ignore them, and exec keeps that
            signal.signal(ending, signal.SIG_DFL)
        _redirect(Path(order["record"]["log"]))
        for held in order["holds"]:
            _hold(held)
        if order["own_network"]:
            _say_and_leave_the_network()
        if order["folder"]:
            os.chdir(order["folder"])
        temporary = tempfile.mkdtemp(prefix=order["temporary_prefix"], dir=order["temporary_base"])
        _record_and_exec(Path(order["record_file"]), {**order["record"], "temporary_folder": temporary})
    except OSError as fault:
        os.write(write_end, str(fault).encode())
    os._exit(1)


def _hold(path: str) -> None:
    """A shared lock on the file, as long as the ordered process or a child with its descriptors lives."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        stands = os.path.samestat(Path(path).stat(), os.fstat(descriptor))
    except BlockingIOError:
        stands = False
    if not stands:
        raise OSError(f"{path} cannot be locked: its artifact is being removed. Start it again.")
    os.set_inheritable(descriptor, True)


def _say_and_leave_the_network() -> None:
    """Where the system does not let it, it stays and its log says so: what it does is not worse for that."""
    if fault := own_network_fault():
        os.write(1, f"The network of the whole machine is used, not one of its own: {fault}\n".encode())
    else:
        _leave_the_network()


def own_network_fault() -> str:
    """Why a process of this user cannot have a network of its own; "" where it can.

    Tried in a process of its own: a half of it cannot be undone.
    """
    read_end, write_end = os.pipe()
    if (child := os.fork()) == 0:
        try:
            _leave_the_network()
        except OSError as error:
            os.write(write_end, str(error).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as told:
        fault = told.read()
    os.waitpid(child, 0)
    return fault


def _leave_the_network() -> None:
    """Into a network namespace that has nothing but its own loopback (network_namespaces(7)).

    Nobody outside can connect to what the process and its children listen on there, and they reach nobody.
    Unix sockets work as before. Without a privilege it takes a user namespace, in which the user is the same.
    """
    import ctypes
    import socket
    import struct

    user, group = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET if user == 0 else CLONE_NEWNET | CLONE_NEWUSER):
        number = ctypes.get_errno()
        raise OSError(number, f"unshare: {os.strerror(number)}")
    if user:
        own = Path("/proc/self")
        (own / "setgroups").write_text("deny")
        (own / "uid_map").write_text(f"{user} {user} 1")
        (own / "gid_map").write_text(f"{group} {group} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        fcntl.ioctl(asking, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))


def _record_and_exec(record_file: Path, record: dict[str, Any]) -> None:
    os.environ["TMPDIR"] = temporary = record["temporary_folder"]
    try:
        _write_record(record_file, record)
        try:
            os.execvp(record["command"][0], record["command"])  # noqa: S606 (a list, no shell)
        except OSError:
            record_file.unlink()
            raise
    except OSError:
        Path(temporary).rmdir()
        raise


def _redirect(log: Path) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)


def _write_record(record_file: Path, record: dict[str, Any]) -> None:
    """Whole or not at all, and never over another's record: linking fails where the name exists."""
    own = {
        "pid": os.getpid(),
        "identity": process_identity(os.getpid()),
        "started": time.time(),
        "watcher": os.getppid(),
    }
    draft = record_file.with_name(f".{record_file.name}.{os.getpid()}")
    draft.write_text(json.dumps({**record, **own}, indent=1))
    try:
        record_file.hardlink_to(draft)
    finally:
        draft.unlink()


if __name__ == "__main__":
    tried = sys.argv[1:] == ["--try-own-network"]
    sys.exit((own_network_fault() if tried else launch(json.load(sys.stdin))) or 0)
