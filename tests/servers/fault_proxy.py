"""A TCP proxy whose connections fail as networks and stores do."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args
from urllib.parse import urlsplit

Fault = Literal["503", "reset", "truncate", "trickle", "hang"]
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
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}{self._path}"

    def close(self) -> None:
        for open_socket in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
            open_socket.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            self._sockets.append(client)
            faulty = self.failed < self.times
            self.failed += faulty
            threading.Thread(target=self._connection, args=(client, faulty), daemon=True).start()

    def _connection(self, client: socket.socket, faulty: bool) -> None:
        if faulty and self.fault == "503":
            return _answer_503(client)
        if faulty and self.fault == "hang":
            return _swallow(client)
        server = socket.create_connection(self._upstream)
        self._sockets.append(server)
        fault = self.fault if faulty else None
        threading.Thread(target=_pump, args=(client, server, fault), daemon=True).start()
        return _pump(server, client, fault)


@contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    proxy = FaultProxy(upstream)
    try:
        yield proxy
    finally:
        proxy.close()


def _pump(source: socket.socket, target: socket.socket, fault: Fault | None) -> None:
    passed = 0
    with contextlib.suppress(OSError):  # either side may end the connection
        while block := source.recv(TRICKLE_BYTES if fault == "trickle" else BLOCK):
            target.sendall(block)
            passed += len(block)
            if fault == "trickle" and passed > TRICKLE_BYTES:
                time.sleep(TRICKLE_PAUSE_S)
            if fault in ("reset", "truncate") and passed > AFTER_BYTES:
                return _end(source, target, abruptly=fault == "reset")
    return _end(source, target, abruptly=False)


def _end(*sockets: socket.socket, abruptly: bool) -> None:
    for ended in sockets:
        with contextlib.suppress(OSError):
            if abruptly:  # closing sends RST
                ended.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                ended.shutdown(socket.SHUT_RDWR)
            ended.close()


def _answer_503(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while client.recv(BLOCK):
            client.sendall(UNAVAILABLE)
            client.shutdown(socket.SHUT_WR)
            _swallow(client)


def _swallow(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while client.recv(BLOCK):
            continue
