"""Serves a console's application: behind its gate, on a unix socket, with Envoy before it."""

import os
import socket
from pathlib import Path

import uvicorn

from resources.consoles.consoles import Console
from resources.consoles.front import SOCKET
from resources.consoles.gate import Application, Gate, Reading

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
    """By way of the folder's descriptor: the whole path may be longer than a socket's address can be."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / SOCKET).unlink(missing_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(f"/proc/self/fd/{descriptor}/{SOCKET}")
    finally:
        os.close(descriptor)
    return listening
