"""Real code servers, one per catalog, and a real webserver that shows them all, as with `dagster dev`."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import psutil

from llm_assets.loaded_locations import LoadedLocations
from resources.waiting import wait_until
from tests.servers.ports import free_port

ROOT = Path(__file__).parents[2]
READY_S = 180
REPOSITORY = "__repository__"


@dataclass(frozen=True, kw_only=True)
class Webserver:
    """A Dagster webserver, asked as its UI asks it."""

    address: str
    pid: int

    @property
    def locations(self) -> LoadedLocations:
        return LoadedLocations(address=self.address, headers={})

    def ask(self, query: str, **variables: object) -> dict[str, Any]:
        """Raises:
        AssertionError: GraphQL answered with errors.
        """
        body = {"query": query, "variables": variables}
        answer = httpx.post(f"{self.address}/graphql", json=body, timeout=READY_S).json()
        assert "errors" not in answer, answer["errors"]
        return dict(answer["data"])


@contextmanager
def webserver(folder: Path, catalogs: Mapping[str, Path], *, reloaded: bool = False) -> Iterator[Webserver]:
    """Serves a code location per catalog, by the name given to it; `folder` becomes their DAGSTER_HOME.

    Args:
        reloaded: The code servers can be reloaded, as those of `dagster dev`; each is two processes then.
    """
    (folder / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    with dg.DagsterInstance.from_config(str(folder)):
        pass  # its tables are there before several processes open them
    port = free_port()
    options = ["-h", "127.0.0.1", "-p", str(port), "-w", str(_workspace(folder, catalogs))]
    with ExitStack() as running:
        for name, catalog in catalogs.items():
            command = code_server_command(folder, name, lazy=True, reloaded=reloaded)
            running.enter_context(code_server(folder, name, catalog, command))
        wait_until(
            lambda: all((folder / f"{name}.socket").exists() for name in catalogs),
            what="the code servers",
            timeout_s=READY_S,
        )
        log = folder / "webserver.log"
        command = [sys.executable, "-m", "dagster_webserver", *options]
        process = running.enter_context(_process(command, {}, folder, log))
        server = Webserver(address=f"http://127.0.0.1:{port}", pid=process.pid)
        wait_until(
            server.locations.settled,
            what=server.address,
            timeout_s=READY_S,
            failed=lambda: None if process.poll() is None else log.read_text()[-3000:],
        )
        yield server


def _workspace(folder: Path, names: Mapping[str, Path]) -> Path:
    servers = "".join(
        f"  - grpc_server: {{socket: {folder / name}.socket, location_name: {name}}}\n" for name in names
    )
    file = folder / "workspace.yaml"
    file.write_text(f"load_from:\n{servers}")
    return file


def code_server_command(folder: Path, name: str, *, lazy: bool, reloaded: bool = False) -> list[str]:
    """A lazy one that does not load its definitions stays there and says why; a reloaded one does so too."""
    started = ["code-server", "start"] if reloaded else ["api", "grpc"]
    module = ["-m", "llm_assets.definitions", "--location-name", name]
    place = ["--socket", str(folder / f"{name}.socket")]
    later = ["--lazy-load-user-code"] if lazy and not reloaded else []
    return [sys.executable, "-m", "dagster", *started, *module, *place, *later]


@contextmanager
def code_server(
    folder: Path, name: str, catalog: Path, command: list[str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs the command for a catalog, with a state folder of its own; its log is `<name>.log`."""
    env = {"LLM_ASSETS_CATALOG": str(catalog), "LLM_ASSETS_HOME": str(folder / name)}
    with _process(command, env, folder, folder / f"{name}.log") as process:
        yield process


@contextmanager
def _process(
    command: list[str], env: Mapping[str, str], home: Path, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    whole = os.environ | {"DAGSTER_HOME": str(home), "LLM_ASSETS_ROOT": str(ROOT)} | dict(env)
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=whole, cwd=ROOT, stdout=output, stderr=output)
    try:
        yield process
    finally:
        if process.poll() is None:  # else its pid may be another's by now
            for each in psutil.Process(process.pid).children(recursive=True):
                each.kill()
            process.kill()  # it keeps nothing, and would take seconds to end
        process.wait(timeout=READY_S)
