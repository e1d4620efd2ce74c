"""An S3-speaking server: moto's on this machine, as a process of its own, or one of yours."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import httpx

from resources.waiting import wait_until
from tests.servers.ports import free_port

OWN_SERVER = "LLM_ASSETS_TEST_S3_SERVER"
SECRET = "bucket-s3cret"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_DEFAULT_REGION": "us-east-1",
}


@contextmanager
def s3_server(*, bucket: str) -> Iterator[str]:
    """A server with one bucket; its address, for AWS_ENDPOINT_URL.

    moto's, with an empty bucket. With LLM_ASSETS_TEST_S3_SERVER the server at that address, which has to know
    `CREDENTIALS` and may keep what it is given.
    """
    if own := os.environ.get(OWN_SERVER):
        _make_bucket(own, bucket)
        yield own
        return
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
        _make_bucket(address, bucket)
        yield address
    finally:
        process.kill()
        process.wait()


def _make_bucket(address: str, bucket: str) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=address,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=SECRET,
        region_name=CREDENTIALS["AWS_DEFAULT_REGION"],
    )
    client.create_bucket(Bucket=bucket)


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/moto-api/").status_code == 200
    except httpx.TransportError:
        return False
