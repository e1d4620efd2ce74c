"""One way of bringing a folder to a store or back, timed in a process of its own; see `benchmarks/store.py`.

    python -m benchmarks.store_copies WAY '{"folder": …}'

Prints seconds (of the work alone, imports are done before) and the peak of resident memory in bytes.
Every way gives the folder whole; only ours also verifies each byte.
"""

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Order = dict[str, Any]
Work = Callable[[], object]
GIB = 2**30


def publish(order: Order) -> Work:
    from resources.artifact_store.artifacts import Line
    from resources.artifact_store.store import ArtifactStore

    store = ArtifactStore(url=order["url"], cache=order["cache"], cache_limit_bytes=64 * GIB)
    line = Line(collection="models", tenant="team-a", name="bench")
    return lambda: store.publish(line, Path(order["folder"]), {"fingerprint": order["folder"]})


def fetch(order: Order) -> Work:
    from resources.artifact_store.artifacts import Line
    from resources.artifact_store.store import ArtifactStore

    store = ArtifactStore(url=order["url"], cache=order["cache"], cache_limit_bytes=64 * GIB)
    artifact = next(store.versions(Line(collection="models", tenant="team-a", name="bench")))

    def work() -> None:
        with store.hold(artifact):
            pass

    return work


def cp(order: Order) -> Work:
    return lambda: subprocess.run(["cp", "-r", order["folder"], order["target"]], check=True)


def copytree(order: Order) -> Work:
    return lambda: shutil.copytree(order["folder"], order["target"])


def sha256(order: Order) -> Work:
    """One thread's hash of every file, with the standard library."""

    def work() -> None:
        for path in sorted(Path(order["folder"]).iterdir()):
            with path.open("rb") as file:
                hashlib.file_digest(file, "sha256")

    return work


def cp_durably(order: Order) -> Work:
    copy = cp(order)
    return lambda: (copy(), _sync(order["target"]))


def copytree_durably(order: Order) -> Work:
    copy = copytree(order)
    return lambda: (copy(), _sync(order["target"]))


def _sync(target: str) -> None:
    subprocess.run(["sync", "-f", target], check=True)


def transfer_manager_upload(order: Order) -> Work:
    from google.cloud import storage
    from google.cloud.storage import transfer_manager

    bucket, folder = _client(storage).bucket(order["bucket"]), Path(order["folder"])
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return lambda: transfer_manager.upload_many_from_filenames(
        bucket,
        names,
        source_directory=str(folder),
        blob_name_prefix=order["prefix"] + "/",
        worker_type=transfer_manager.THREAD,
        raise_exception=True,
    )


def transfer_manager_download(order: Order) -> Work:
    from google.cloud import storage
    from google.cloud.storage import transfer_manager

    bucket, prefix = _client(storage).bucket(order["bucket"]), order["prefix"] + "/"
    names = [blob.name.removeprefix(prefix) for blob in bucket.list_blobs(prefix=prefix)]
    return lambda: transfer_manager.download_many_to_path(
        bucket,
        names,
        destination_directory=order["target"],
        blob_name_prefix=prefix,
        worker_type=transfer_manager.THREAD,
        create_directories=True,
        raise_exception=True,
    )


def _client(storage: Any) -> Any:
    from google.auth.credentials import AnonymousCredentials

    return storage.Client(project="test", credentials=AnonymousCredentials())


def gcsfs_put(order: Order) -> Work:
    remote = f"{order['bucket']}/{order['prefix']}"
    return lambda: _gcsfs().put(order["folder"] + "/", remote, recursive=True)


def gcsfs_get(order: Order) -> Work:
    remote = f"{order['bucket']}/{order['prefix']}"
    return lambda: _gcsfs().get(remote + "/", order["target"] + "/", recursive=True)


def _gcsfs() -> Any:
    import gcsfs

    endpoint = os.environ["STORAGE_EMULATOR_HOST"]
    return gcsfs.GCSFileSystem(project="test", token="anon", endpoint_url=endpoint)  # noqa: S106 (no token)


def gsutil_cp(order: Order) -> Work:
    """The whole command, its start of a second or two included: that is what people wait for."""
    command = [order["gsutil"], "-q", "-m", "cp", "-r", order["source"], order["target"]]
    Path(order["target"]).mkdir(parents=True, exist_ok=True) if "://" not in order["target"] else None
    return lambda: subprocess.run(command, check=True, env={**os.environ, "BOTO_CONFIG": order["boto"]})


def mlflow_upload(order: Order) -> Work:
    from mlflow import MlflowClient

    client = MlflowClient(order["tracking_uri"])
    run = client.create_run(client.create_experiment(f"bench-{time.time_ns()}"))
    return lambda: client.log_artifacts(run.info.run_id, order["folder"])


def main() -> None:
    way, order = sys.argv[1], json.loads(sys.argv[2])
    work = globals()[way](order)
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(json.dumps({"seconds": seconds, "peak_bytes": max(_own_peak_kib(), children) * 1024}))


def _own_peak_kib() -> int:
    """Of this program alone: ru_maxrss would begin with what its parent had."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main()
