"""Where artifacts' bytes lie: disks, Google Cloud Storage, S3-compatible stores, Artifactory."""


def open_object_store(url):
    from pathlib import Path

    from resources.object_stores.disk import DiskStore

    return DiskStore(Path(url.removeprefix("file:")))
