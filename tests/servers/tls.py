"""An HTTPS server whose certificate nobody trusts: OpenSSL's own, as a process apart.

Python's SSLSocket leaks the connection of a client that has already gone when it is accepted.
"""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resources.waiting import wait_until
from tests.servers.ports import free_port

SELF_SIGNED = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]


@contextmanager
def untrusted_server(folder: Path) -> Iterator[str]:
    """Runs the server with a certificate made in `folder`; its address."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    made = ["openssl", *SELF_SIGNED, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    port = free_port()
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-www", "-quiet"]
    process = subprocess.Popen(
        [*command, "-cert", str(certificate), "-key", str(key)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(
            lambda: _listens(port),
            what="openssl s_server",
            timeout_s=20,
            failed=lambda: None if process.poll() is None else f"exit status {process.returncode}",
        )
        yield f"https://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
