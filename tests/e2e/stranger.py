"""Another user of the machine, who tries everything that a running stack has on it.

It runs in a process of its own, which needs root to become somebody else. It is given what the owner sees
(listening ports, sockets, files, processes) and the route tables of the servers, and tells what it could do.
"""

import encodings.idna  # noqa: F401  loaded while its file can be read
import fcntl
import http.client
import json
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import psutil

from resources.gateway.envoy_admin import EnvoyAdmin
from resources.processes.local_processes import LocalProcesses
from resources.processes.temporary_folders import ADDRESS_BYTES
from resources.processes.unix_sockets import short_address
from tests.conftest import ROOT, Project
from tests.e2e.projects import family

STRANGER = 65534
ANSWERS_EVERYBODY = {("GET", "/healthz"), ("HEAD", "/healthz")}  # of the gateway: 200 and nothing else
LISTENS = "0A"  # TCP_LISTEN
WORLD = ("/tmp/", "/var/tmp/", "/dev/shm/", "/run/")  # where others may make files


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the owner sees of a stack."""

    pids: list[int]
    ports: list[tuple[str, int]]
    paths: list[str]
    abstract: list[str]
    asked: list[tuple[str, str]]


def what_a_stranger_can_do(project: Project) -> list[str]:
    """A sentence for each thing."""
    asked = sorted(routes(project))
    seen = what_there_is(project, asked)
    assert len(seen.ports) > 10, "PyTorch's as well"
    sockets = [path for path in seen.paths if Path(path).is_socket()]
    assert {Path(path).name for path in sockets} >= {"admin.sock", "metrics.sock", "app.sock"}
    command = [sys.executable, "-m", "tests.e2e.stranger"]
    with reachable(project.settings.home):
        done = subprocess.run(
            command, input=json.dumps(asdict(seen)), cwd=ROOT, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["tried"] > 6 * len(seen.paths) + 4 * len(asked)
    print(f"tried {told['tried']}: {len(seen.paths)} paths, {len(seen.ports)} ports, {len(asked)} routes")
    return list(told["could"])


@contextmanager
def reachable(folder: Path) -> Iterator[None]:
    """Its own rights decide, and not those of the folders above, which pytest closes to others."""
    above = [(parent, stat.S_IMODE(parent.stat().st_mode)) for parent in folder.parents]
    closed = [(parent, mode) for parent, mode in above if not mode & stat.S_IXOTH]
    for parent, mode in closed:
        parent.chmod(mode | stat.S_IXOTH)
    try:
        yield
    finally:
        for parent, mode in closed:
            parent.chmod(mode)


def routes(project: Project) -> set[tuple[str, str]]:
    """Methods and paths, from each server's own table."""
    found = {("GET", "/healthz"), ("GET", "/v1/models"), ("GET", "/t/team-a/v1/models")}
    found |= {("GET", "/metrics"), ("GET", "/metrics/audit"), ("GET", "/"), ("POST", "/v1/chat/completions")}
    home = project.settings.home
    lines = EnvoyAdmin(folder=home / "gateway").read("/help").splitlines()
    admin = {line.split(":")[0].split()[0] for line in lines if line.startswith("  /")}
    assert {"/config_dump", "/quitquitquit"} <= admin
    found |= {(method, path) for path in admin for method in ("GET", "POST")}
    return found | of_vllm(project) | of_mlflow() | of_dagster()


def of_vllm(project: Project) -> set[tuple[str, str]]:
    home = project.settings.home
    deployment = json.loads((home / "serving" / "team-a" / "support_bot" / "deployment.json").read_text())
    [live] = deployment["backends"]
    with short_address(home / live["address"].removeprefix("unix:")) as address:
        transport = httpx.HTTPTransport(uds=address)
        with httpx.Client(transport=transport, base_url="http://vllm") as vllm:
            told = vllm.get("/openapi.json").json()["paths"]
    assert {"/invocations", "/tokenize", "/metrics", "/health"} <= told.keys()
    found = {(method.upper(), concrete(path)) for path, methods in told.items() for method in methods}
    return found | {("GET", f"/metrics/vllm/{live['id']}")}


def of_mlflow() -> set[tuple[str, str]]:
    from mlflow.server.handlers import get_endpoints

    found = {(method, concrete(path)) for path, _, methods in get_endpoints() for method in methods}
    assert len(found) > 100
    return found


def of_dagster() -> set[tuple[str, str]]:
    from dagster_webserver.webserver import DagsterWebserver
    from starlette.routing import Route

    table = DagsterWebserver(cast(Any, None)).build_routes()
    served = [each for each in table if isinstance(each, Route)]
    found = {(method, concrete(each.path)) for each in served for method in each.methods or ()}
    assert ("POST", "/graphql") in found
    return found


def concrete(path: str) -> str:
    """With something in the place of each parameter: `{x}`, `{x:path}`, `<x>`."""
    return re.sub(r"\{[^}]*\}|<[^>]*>", "x", path)


def what_there_is(project: Project, asked: list[tuple[str, str]]) -> Seen:
    home = str(project.settings.home)
    processes = LocalProcesses(project.settings.processes)
    records = [record for record in processes.all() if processes.alive(record)]
    everybody = {process.pid: process for process in family(project)}
    for record in records:
        leader = psutil.Process(record.pid)
        everybody |= {each.pid: each for each in (leader, *leader.children(recursive=True))}
    ports, paths, abstract = set(), set(), set()
    for process in everybody.values():
        try:
            ports |= {each.laddr for each in process.net_connections("inet") if each.status == "LISTEN"}
            ports |= {each.laddr for each in process.net_connections("udp") if each.laddr}
            ports |= in_a_network_of_its_own(process.pid)
            abstract |= {each.laddr for each in process.net_connections("unix") if each.laddr.startswith("@")}
            paths |= {opened.path for opened in process.open_files() if opened.path.startswith(WORLD)}
            paths |= {each.path for each in process.memory_maps() if each.path.startswith(WORLD)}
        except psutil.NoSuchProcess:  # a short one that has ended
            continue
    for folder in (project.settings.home, *(record.temporary_folder for record in records)):
        paths |= {str(folder), *(str(path) for path in below(folder, apart_from=project.settings.engines))}
    ours = {path for path in paths if not path.startswith(f"{project.root}/") or path.startswith(home)}
    return Seen(
        pids=sorted(everybody),
        ports=sorted((ip, port) for ip, port in ports),
        paths=sorted(ours),
        abstract=sorted(abstract),
        asked=asked,
    )


def in_a_network_of_its_own(pid: int) -> set[tuple[str, int]]:
    """What listens in its network namespace, at those numbers of this one."""
    if Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink():
        return set()
    listening = (line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:])
    return {("127.0.0.1", int(each[1].partition(":")[2], 16)) for each in listening if each[3] == LISTENS}


def below(folder: Path, *, apart_from: Path) -> Iterator[Path]:
    for entry in os.scandir(folder):
        path = Path(entry.path)
        if path != apart_from:
            yield path
            if entry.is_dir(follow_symlinks=False):
                yield from below(path, apart_from=apart_from)


class Stranger:
    """Tries, and notes what worked."""

    def __init__(self) -> None:
        self.could: list[str] = []
        self.tried = 0

    def open(self, path: str) -> None:
        """Reads, changes and holds: whoever can open a file in any way can also lock it."""
        for name, flags in (("read", os.O_RDONLY), ("write", os.O_WRONLY), ("find", os.O_PATH)):
            self.tried += 1
            try:
                descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)
            except OSError:
                continue
            if name == "find" and os.access(Path(path).parent, os.R_OK):
                continue  # it lies in a folder that all can list, as those in /tmp do; it is closed itself
            self.could.append(f"{name} {path}")
            if name != "find":
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.could.append(f"lock {path}")
            os.close(descriptor)
        for name, change in (
            ("make a file in", lambda: Path(path, "stranger").touch()),
            ("rename", lambda: Path(path).rename(f"{path}.stranger")),
            ("open to all", lambda: Path(path).chmod(0o777)),
        ):
            self.tried += 1
            try:
                change()
            except OSError:
                continue
            self.could.append(f"{name} {path}")

    def connect(self, address: str) -> None:
        """By its name in its folder where the whole path is too long, which takes the same rights."""
        self.tried += 1
        if len(os.fsencode(address)) > ADDRESS_BYTES:
            try:
                os.chdir(Path(address).parent)
            except OSError:
                return
            address = Path(address).name
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(2)
            try:
                client.connect(address)
            except OSError:
                return
        self.could.append(f"connect to the socket {address}")

    def look_into(self, pid: int) -> None:
        for name in ("environ", "mem", "maps", "fd", "cwd", "root"):
            self.tried += 1
            try:
                if name in ("environ", "mem", "maps"):
                    Path(f"/proc/{pid}/{name}").read_bytes()
                else:
                    list(Path(f"/proc/{pid}/{name}").iterdir())
            except OSError:
                continue
            self.could.append(f"read /proc/{pid}/{name}")
        self.tried += 1
        try:
            os.kill(pid, 0)
        except OSError:
            return
        self.could.append(f"send a signal to {pid}")

    def ask(self, host: str, port: int, asked: list[tuple[str, str]]) -> None:
        """Every route of every server, at every port: whatever is not refused is told."""
        where = "127.0.0.1" if host in ("0.0.0.0", "127.0.0.1") else host
        client = http.client.HTTPConnection(where, port, timeout=20)
        for method, path in asked:
            self.tried += 1
            try:
                client.request(method, path, body=b"{}" if method in ("POST", "PUT", "PATCH") else None)
                answer = client.getresponse()
                answer.read()
            except (ConnectionRefusedError, TimeoutError):
                return  # it listens in a network of its own, or answers nobody
            except (http.client.HTTPException, OSError):
                client.close()  # it is no HTTP, or hung up: nothing was answered
                continue
            if answer.status < 400 and (method, path) not in ANSWERS_EVERYBODY:
                self.could.append(f"{method} {path} at {host}:{port}: {answer.status}")
        client.close()

    def try_everything(self, seen: dict[str, Any]) -> None:
        for path in seen["paths"]:
            self.open(path)
            self.connect(path)
        for name in seen["abstract"]:
            self.connect("\0" + name.removeprefix("@"))
        for pid in seen["pids"]:
            self.look_into(pid)
        for host, port in seen["ports"]:
            self.ask(host, port, seen["asked"])


def main() -> None:
    seen = json.load(sys.stdin)
    os.setgroups([])
    os.setgid(STRANGER)
    os.setuid(STRANGER)
    stranger = Stranger()
    stranger.try_everything(seen)
    print(json.dumps({"could": stranger.could, "tried": stranger.tried}))


if __name__ == "__main__":
    main()
