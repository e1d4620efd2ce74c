"""An S3-speaking server on this machine: moto's, as a process of its own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from resources.waiting import wait_until
from tests.servers.ports import free_port

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@contextmanager
def s3_server(*, bucket: str) -> Iterator[str]:
    """Runs the server with one empty bucket; its address, for AWS_ENDPOINT_URL."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(
            lambda: _answers(address),
            what="moto's server",
            timeout_s=60,
            failed=lambda: None if process.poll() is None else f"exit status {process.returncode}",
        )
        httpx.put(f"{address}/{bucket}").raise_for_status()
        yield address
    finally:
        process.kill()
        process.wait()


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/moto-api/").status_code == 200
    except httpx.TransportError:
        return False
