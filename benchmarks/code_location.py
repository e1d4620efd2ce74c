"""How long a large catalog takes from a code server's start to the UI's lineage, with real processes.

Part of `make bench BENCH=overhead`; by itself: `make bench BENCH=code_location`.

`load_5000_tenants_s`: from a code server's start until its repository of 100 models and 5,000 tenants is
loaded, without the imports, which have a row of their own. Bound by the interpreter: Dagster makes a step for
each of 1,500 assets and checks, and a job for each model.
`ui_first_graph_s`: from a webserver that has loaded that location to its first answer to the query by which
the UI draws the lineage (`LocationWorkspaceAssetsQuery` of Dagster 1.13, its fragments written out).
Medians of three, each with new processes.
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._grpc.client import DagsterGrpcClient

from benchmarks.measuring import BenchmarkError, Measured, conclude, measure, row
from tests.catalogs import Made, model
from tests.servers.code_locations import code_server, code_server_command, webserver

MODELS, TENANTS, MODELS_OF_A_TENANT = 100, 5_000, 3
ROUNDS = 3
READY_S, LOOK_S = 120, 0.01
NAME = "large"
IMPORTS = "import dagster._cli.api, dagster._grpc.server, llm_assets.graph"
LINEAGE = """query LocationWorkspaceAssetsQuery($name: String!) {
  workspaceLocationEntryOrError(name: $name) {
    ... on PythonError { message stack }
    ... on WorkspaceLocationEntry { id name loadStatus updatedTimestamp versionKey locationOrLoadError {
      ... on PythonError { message stack }
      ... on RepositoryLocation { id name repositories { id name
        assetGroups { id groupName }
        assetNodes {
          id graphName changedReasons groupName opNames isMaterializable isObservable isExecutable
          isPartitioned isAutoCreatedStub hasAssetChecks computeKind hasMaterializePermission
          hasWipePermission hasReportRunlessAssetEventPermission
          assetKey { path } dependencyKeys { path } jobNames kinds
          internalFreshnessPolicy { __typename }
          partitionDefinition { dimensionTypes { type dynamicPartitionsDefinitionName } }
          automationCondition { __typename }
          description(characterLimit: 240)
          owners { ... on UserAssetOwner { email } ... on TeamAssetOwner { team } }
          tags { key value } storageAddress { storageKind tableName }
        }
      } }
    } }
  }
}"""


def main() -> None:
    rows, bars = code_location()
    conclude("code_location", rows, bars)


def code_location() -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The rows of a table, and the bars."""
    with tempfile.TemporaryDirectory(prefix="code-location-") as folder:
        catalog = large_catalog().write(Path(folder, "catalog"))
        imports = [_imports(Path(folder)) for _ in range(ROUNDS)]
        loads = [_load(Path(folder, f"load-{number}"), catalog) for number in range(ROUNDS)]
        graphs = [_first_graph(Path(folder, f"graph-{number}"), catalog) for number in range(ROUNDS)]
    what = f"{MODELS} models, {TENANTS} tenants"
    rows = [
        row("imports of a code server", imports),
        row(f"code server loads {what}, imports included", loads),
        row(f"webserver answers with the lineage of {what}", graphs),
    ]
    imports_s, load_s, graph_s = (each["seconds"] for each in rows)
    return rows, {"load_5000_tenants_s": load_s - imports_s, "ui_first_graph_s": graph_s}


def large_catalog() -> Made:
    names = [f"model_{number}" for number in range(MODELS)]
    tenants = {
        f"tenant-{number}": tuple(names[(number + each) % MODELS] for each in range(MODELS_OF_A_TENANT))
        for number in range(TENANTS)
    }
    return Made(base_models=("base",), models={name: model("base") for name in names}, tenants=tenants)


def _imports(folder: Path) -> Measured:
    command = [sys.executable, "-c", IMPORTS]
    return measure(command, env=os.environ, cwd=folder, log=folder / "imports.log", mark=folder / "none")


def _load(home: Path, catalog: Path) -> Measured:
    """Seconds until the server lists its repository: it has built every definition then."""
    home.mkdir()
    command = code_server_command(home, NAME, lazy=False)
    started = time.monotonic()
    with code_server(home, NAME, catalog, command) as process:
        client = DagsterGrpcClient(socket=str(home / f"{NAME}.socket"))
        while not _listed(client):
            if process.poll() is not None or time.monotonic() > started + READY_S:
                raise BenchmarkError((home / f"{NAME}.log").read_text()[-3000:])
            time.sleep(LOOK_S)
        return _measured(started, process.pid)


def _listed(client: DagsterGrpcClient) -> bool:
    try:
        client.list_repositories()
    except DagsterUserCodeUnreachableError:
        return False  # it does not answer yet
    return True


def _first_graph(home: Path, catalog: Path) -> Measured:
    home.mkdir()
    with webserver(home, {NAME: catalog}) as server:
        started = time.monotonic()
        answer = server.ask(LINEAGE, name=NAME)
        measured = _measured(started, server.pid)
    [repository] = answer["workspaceLocationEntryOrError"]["locationOrLoadError"]["repositories"]
    wanted = MODELS * 5 + 2  # the chain of each model, the base model, the usage
    if len(repository["assetNodes"]) != wanted:
        raise BenchmarkError(f"The lineage has {len(repository['assetNodes'])} assets instead of {wanted}.")
    return measured


def _measured(started: float, pid: int) -> Measured:
    """What a process took since `started`; it holds most at the end."""
    return Measured(seconds=time.monotonic() - started, peak_bytes=psutil.Process(pid).memory_info().rss)


if __name__ == "__main__":
    main()
