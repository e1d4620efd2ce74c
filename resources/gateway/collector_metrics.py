"""The metrics of the collector, at a socket of its own that the gateway's metrics listener shows.

What the gateway answered and refused (`request_metrics`), and how far the collector is with sealing it.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from itertools import chain
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

from resources.gateway.metrics import COLLECTOR_SOCKET
from resources.gateway.request_metrics import RequestMetrics, family

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class CollectorMetrics:
    """What one collector has counted since it started."""

    def __init__(self) -> None:
        self.requests = RequestMetrics()
        self._sealed = self._unsealed = 0
        self._looked_at = 0.0

    def looked(self, *, sealed: int, unsealed: int) -> None:
        """The collector has looked for records: so many it sealed in all, so many it could not seal yet."""
        self._sealed, self._unsealed, self._looked_at = sealed, unsealed, time.time()

    def text(self) -> str:
        """In Prometheus's text format."""
        sealed, unsealed = "llm_audit_sealed_records_total", "llm_audit_unsealed_records"
        looked = "llm_audit_looked_timestamp_seconds"
        own = (
            (sealed, "counter", "Audit records sealed since the collector started.", str(self._sealed)),
            (unsealed, "gauge", "Audit records that could not be sealed yet.", str(self._unsealed)),
            (looked, "gauge", "When the collector last looked for records.", f"{self._looked_at:.3f}"),
        )
        lines = (family(name, kind, text, [f"{name} {value}\n"]) for name, kind, text, value in own)
        return self.requests.text() + "".join(chain.from_iterable(lines))

    @contextmanager
    def shown(self, folder: Path) -> Iterator[None]:
        """Answers at the socket in that folder, whose only collector this is."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:  # by way of the descriptor: the address of a socket has 107 bytes
            (folder / COLLECTOR_SOCKET).unlink(missing_ok=True)
            server = _Server(f"/proc/self/fd/{descriptor}/{COLLECTOR_SOCKET}", _answering(self))
        finally:
            os.close(descriptor)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
            (folder / COLLECTOR_SOCKET).unlink(missing_ok=True)


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True


def _answering(metrics: CollectorMetrics) -> type[BaseHTTPRequestHandler]:
    class Answering(BaseHTTPRequestHandler):
        """The metrics at every path: the listener before it lets one through."""

        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            text = metrics.text().encode()
            self.send_response(200)
            self.send_header("content-type", CONTENT_TYPE)
            self.send_header("content-length", str(len(text)))
            self.send_header("connection", "close")  # nobody answers for a collector that has ended
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            """A scrape is no event."""

    return Answering
