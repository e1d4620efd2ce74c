"""A store from its URL; the library of a cloud is imported only for that cloud."""

from pathlib import Path

from resources.object_stores.objects import ObjectStore, ObjectStoreError
from resources.object_stores.retries import Retries

FORMS = (
    "file:/a/folder",
    "gs://bucket/folder",
    "s3://bucket/folder",
    "artifactory+https://host/artifactory/repository/folder",
)


def open_object_store(url: str, *, retries: Retries | None = None) -> ObjectStore:
    """The store at `url`, whose last folder need not exist yet.

    Raises:
        ObjectStoreError: The URL has another form or holds credentials, or the cloud's library or credentials
        are
            missing.
    """
    scheme, _, rest = url.partition(":")
    if "@" in rest.removeprefix("//").split("/", 1)[0]:
        raise ObjectStoreError(
            f"The URL of an object store holds no credentials, but the one of {scheme}: does. Give them by "
            "the environment: Application Default Credentials, AWS_ACCESS_KEY_ID, or ARTIFACTORY_TOKEN."
        )
    if scheme == "file":
        from resources.object_stores.disk import DiskStore

        return DiskStore(Path(rest.removeprefix("//")))
    if url.startswith("gs://"):
        from resources.object_stores.gcs import GcsStore

        return GcsStore(url, retries=retries)
    if url.startswith("s3://"):
        from resources.object_stores.s3 import S3Store

        return S3Store(url, retries=retries)
    if url.startswith(("artifactory+https://", "artifactory+http://")):
        from resources.object_stores.artifactory import ArtifactoryStore

        return ArtifactoryStore(url, retries=retries)
    raise ObjectStoreError(f"There is no object store {url!r}; one is written as {', '.join(FORMS)}.")
