"""A TCP proxy whose connections fail as networks and stores do."""

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args
from urllib.parse import urlsplit

Fault = Literal["503", "reset", "truncate", "trickle", "hang", "deaf"]
"""`hang`: nothing reaches the server. `deaf`: everything does, but no answer comes back."""
FAULTS: tuple[Fault, ...] = get_args(Fault)

AFTER_BYTES = 200_000
"""Of a body, in whatever direction, before a reset or a truncation."""
TRICKLE_BYTES = 16 * 1024
TRICKLE_PAUSE_S = 0.1
BLOCK = 64 * 1024
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class FaultProxy:
    """Forwards to `upstream`; the first `times` connections fail by `fault`."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self._path = parts.path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.fault: Fault = "503"
        self.times = 0
        self.failed = 0
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}{self._path}"

    def close(self) -> None:
        """Ends every connection; the threads close their sockets themselves."""
        for open_socket in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):  # it ended before
                open_socket.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            self._sockets.append(client)
            faulty = self.failed < self.times
            self.failed += faulty
            self._threads.append(
                threading.Thread(target=self._connection, args=(client, faulty), daemon=True)
            )
            self._threads[-1].start()

    def _connection(self, client: socket.socket, faulty: bool) -> None:
        fault = self.fault if faulty else None
        if fault in ("503", "hang"):
            with client, contextlib.suppress(OSError):  # the client may end it
                _answer_503(client) if fault == "503" else _swallow(client)
            return None
        try:
            server = socket.create_connection(self._upstream)
        except OSError:  # the server is gone, as it may be
            return client.close()
        self._sockets.append(server)
        return _pump(client, server, fault)


@contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    proxy = FaultProxy(upstream)
    try:
        yield proxy
    finally:
        proxy.close()


def _pump(client: socket.socket, server: socket.socket, fault: Fault | None) -> None:
    """Forwards both ways on one thread: a socket that another thread reads would not be closed at once."""
    other, passed = {client: server, server: client}, {client: 0, server: 0}
    with contextlib.suppress(OSError):  # either side may end the connection
        while True:
            for source in select.select(list(other), [], [])[0]:
                block = source.recv(TRICKLE_BYTES if fault == "trickle" else BLOCK)
                if source is server and fault == "deaf":
                    other = {client: server} if not block else other
                    continue
                other[source].sendall(block)
                passed[source] += len(block)
                if fault == "trickle" and passed[source] > TRICKLE_BYTES:
                    time.sleep(TRICKLE_PAUSE_S)
                broken = fault in ("reset", "truncate") and passed[source] > AFTER_BYTES
                if broken or not block:
                    return _end(client, server, abruptly=fault == "reset")
    return _end(client, server, abruptly=False)


def _end(*sockets: socket.socket, abruptly: bool) -> None:
    for ended in sockets:
        with contextlib.suppress(OSError):
            if abruptly:  # closing sends RST
                ended.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            ended.close()


def _answer_503(client: socket.socket) -> None:
    client.recv(BLOCK)
    client.sendall(UNAVAILABLE)
    client.shutdown(socket.SHUT_WR)
    _swallow(client)


def _swallow(client: socket.socket) -> None:
    while client.recv(BLOCK):
        continue
