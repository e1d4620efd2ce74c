"""What `dagster dev` comes down to, with its webserver behind a gate: code server, daemon, webserver.

`dagster dev` starts its webserver as a program of its own, which listens at an address for everybody. Here it
is built in this process, on a unix socket, behind its console's gate and Envoy. Code server and daemon are
started as `dagster dev` does. For a read-only token the buttons that would change something are disabled.

Run as `resources/dagster_ui/console.py` says. Modules that begin with an underscore are Dagster's own; it is
pinned.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml
from dagster import DagsterInstance
from dagster._cli.proxy_server_manager import ProxyServerManager
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._utils.interrupts import setup_interrupt_handlers
from dagster._utils.log import configure_loggers
from dagster_webserver.app import create_app_from_workspace_process_context
from dagster_webserver.version import __version__
from starlette.requests import HTTPConnection

from resources.consoles.front import child_of_ours, envoy_before
from resources.consoles.gate import ACCESS
from resources.consoles.serving import serve
from resources.dagster_ui.console import dagster_console
from resources.dagster_ui.reading import DagsterReading

LOG_LEVEL = "warning"
POLL_MS = 2000  # how often the pages ask for news
STATEMENT_S, POOL_RECYCLE_S, POOL_OVERFLOW = 15, 3600, 20  # as Dagster's own webserver


def main() -> None:
    options = _options()
    os.environ["DAGSTER_IS_DEV_CLI"] = "1"
    configure_loggers(formatter="colored", log_level=LOG_LEVEL.upper())
    setup_interrupt_handlers()
    console = dagster_console(port=options.port, folder=options.console, tokens=options.tokens)
    with (
        suppress(KeyboardInterrupt, DagsterExecutionInterruptedError),  # SIGTERM, once uvicorn has ended
        envoy_before(console),
        DagsterInstance.get() as instance,
        _code_servers(instance, options.workspace) as workspace,
        _daemon(workspace),
    ):
        instance.optimize_for_webserver(STATEMENT_S * 1000, POOL_RECYCLE_S, POOL_OVERFLOW)
        target = WorkspaceFileTarget(paths=[str(workspace)])
        with Workspace(instance, target, version=__version__, code_server_log_level=LOG_LEVEL) as context:
            app = create_app_from_workspace_process_context(context, live_data_poll_rate=POLL_MS)
            serve(app, console, DagsterReading())


class Workspace(WorkspaceProcessContext):
    """Each request with the rights of who asks."""

    def create_request_context(self, source: object | None = None) -> WorkspaceRequestContext:
        may_change = isinstance(source, HTTPConnection) and source.scope.get(ACCESS) == "full"
        return WorkspaceRequestContext(
            instance=self.instance,
            current_workspace=self.get_current_workspace(),
            process_context=self,
            version=self.version,
            source=source,
            read_only=not may_change,
        )


@contextmanager
def _code_servers(instance: DagsterInstance, workspace: Path) -> Iterator[Path]:
    """One code server for webserver and daemon; gives the workspace that names it."""
    target = WorkspaceFileTarget(paths=[str(workspace)])
    with (
        ProxyServerManager(instance, target, code_server_log_level=LOG_LEVEL) as servers,
        tempfile.TemporaryDirectory() as folder,
    ):
        file = Path(folder, "workspace.yaml")
        file.write_text(yaml.safe_dump({"load_from": list(servers.get_code_server_specs())}))
        yield file


@contextmanager
def _daemon(workspace: Path) -> Iterator[None]:
    """Runs sensors, schedules and the queue. Neither it nor this process outlives the other."""
    command = [sys.executable, "-m", "dagster._daemon", "run", "--log-level", LOG_LEVEL]
    with child_of_ours([*command, "--workspace", str(workspace)], cwd=Path.cwd()):
        yield


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Dagster's UI and daemon, for this machine only.")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--console", type=Path, required=True, help="the folder of its socket")
    parser.add_argument("--tokens", type=Path, required=True, help="the folder of the consoles' tokens")
    return parser.parse_args()


if __name__ == "__main__":
    main()
