"""Serves a console's application: behind its gate, on a unix socket, with Envoy before it."""

import socket
from pathlib import Path

import uvicorn

from resources.consoles.consoles import Console
from resources.consoles.front import SOCKET
from resources.consoles.gate import Application, Gate, Reading
from resources.processes.unix_sockets import short_address

SHUTDOWN_S = 5


def serve(app: Application, console: Console, reading: Reading) -> None:
    """Until SIGTERM or SIGINT, or until Envoy ends. Nothing that is asked is written to a log."""
    config = uvicorn.Config(
        Gate(app, console, reading),
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=SHUTDOWN_S,
        server_header=False,
    )
    with _socket(console.folder) as listening:
        uvicorn.Server(config).run(sockets=[listening])


def _socket(folder: Path) -> socket.socket:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / SOCKET).unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    with short_address(folder / SOCKET) as address:
        listening.bind(address)
    return listening
