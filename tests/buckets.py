"""Buckets for tests: S3 of moto's server or one of yours, GCS of the binary of a PyPI wrapper.

`environment` is what a program needs to reach a bucket's server and nothing else.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from resources.artifact_store.artifacts import Line
from resources.artifact_store.store import ArtifactStore
from resources.object_stores.opening import open_object_store
from tests.servers.gcs import gcs_server
from tests.servers.s3 import CREDENTIALS, s3_server

BUCKET = "models"
LINE = Line(collection="models", tenant="team-a", name="support_bot")


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """`scheme` is that of its addresses."""

    scheme: str
    environment: Mapping[str, str]

    def store(self, place: str) -> ArtifactStore:
        """A store at `place`."""
        return ArtifactStore(url=f"{self.scheme}://{BUCKET}/{place}")

    def publish(self, folder: Path, place: str) -> tuple[str, str]:
        """Publishes a folder as a version in a store at `place`; where it lies there, and its digest."""
        with self._reachable():
            store = self.store(place)
            artifact = store.publish(LINE, folder, {})
            return store.object_url(artifact), artifact.digest

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patched:
            for variable, value in self.environment.items():
                patched.setenv(variable, value)
            yield

    def put(self, address: str, content: bytes, scratch: Path) -> None:
        """Writes an object behind the store's back."""
        (scratch / "object").write_bytes(content)
        folder, _, name = address.rpartition("/")
        with self._reachable():
            open_object_store(folder).upload(scratch / "object", name, lambda _: None)


@contextmanager
def s3_bucket() -> Iterator[Bucket]:
    with s3_server(bucket=BUCKET) as address:
        yield Bucket(scheme="s3", environment=CREDENTIALS | {"AWS_ENDPOINT_URL": address})


@contextmanager
def gcs_bucket(folder: Path, *, host: str = "127.0.0.1") -> Iterator[Bucket]:
    """Keep its files small: it takes several times an object's size in memory."""
    with gcs_server(folder, bucket=BUCKET, host=host) as address:
        environment = {
            "STORAGE_EMULATOR_HOST": address,
            "CLOUD_STORAGE_EMULATOR_ENDPOINT": address,
            "RUNAI_STREAMER_GCS_USE_ANONYMOUS_CREDENTIALS": "true",
            "GOOGLE_CLOUD_PROJECT": "test",
        }
        yield Bucket(scheme="gs", environment=environment)
