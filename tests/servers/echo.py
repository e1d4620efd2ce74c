"""An HTTP server that answers with what it was asked, or as the path says: a vLLM of the tests."""

import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any


class Echo(ThreadingMixIn, UnixStreamServer):
    """`/slow/2` answers after 2 s, `/status/503` with that status, everything else with the request.

    `asked` has every request that arrived; `name` stands in every answer.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path: Path, name: str = "echo") -> None:
        self.asked: list[dict[str, Any]] = []
        self.path, self.name = path, name
        super().__init__(str(path), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is none."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Echo

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _answer(self, body: bytes) -> None:
        asked = {
            "server": self.server.name,
            "method": self.command,
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body_bytes": len(body),
        }
        self.server.asked.append(asked)
        _, what, *amount = self.path.partition("?")[0].split("/")
        if what == "slow":
            time.sleep(float(amount[0]))
        text = json.dumps(asked).encode()
        self.send_response(int(amount[0]) if what == "status" else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder whose sockets' addresses are short; those of a test's own folder may be too long."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@contextmanager
def echoing(name: str = "echo") -> Iterator[Echo]:
    with short_folder() as folder:
        server = Echo(folder / "echo.sock", name)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
