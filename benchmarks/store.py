"""What publishing and fetching cost over the best raw copy, hashing and verification included.

    make bench BENCH=store

On a disk (a file of 1 GiB, a thousand small ones) beside `cp -r`, `shutil.copytree` and MLflow's own upload;
on the bundled GCS server (files of 48 MB, a thousand small ones) beside google-cloud-storage's transfer
manager, gcsfs and `gsutil -m cp`. What is published is in the page cache, as after a training; what is
fetched from the disk is not. Everyone is timed in a process of its own, without its imports (gsutil with
them: it has no other way), and memory is that process's peak. A publication on a disk is on it when it is
done, so copies are synced too; a cache's files need not be.
Bars (at most 1.4 on any machine): `publish_ratio_to_bound`, `fetch_ratio_to_bound`: ours over what bounds it,
the slower of the fastest raw copy and, on a disk, of one SHA-256 of the same bytes in one thread, which a
large file costs whoever verifies it. A bucket's server shares the two cores here, so there the SHA-256 and
the CRC32C of what is sent come on top of the copy; on a disk, the handing of blocks between two threads. The
worst scenario counts but that of small files on a disk, which has keys of its own (bound by the interpreter:
a raw copy only copies). `…_ratio_to_raw` are the same over the raw copy alone: what verifying costs where the
disk is faster than the processor hashes.
`second_adapter_share_sent`: of a base model and its second adapter, what the second publication sends.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.measuring import conclude
from benchmarks.peers import boto_config, environment_of
from resources.mlflow.server import MlflowServer
from tests.servers.gcs import gcs_server
from tests.servers.ports import free_port

BUCKET = "bench"
MIB = 2**20
PINNED_GSUTIL = "gsutil==5.38"
GSUTIL, HASH, OURS = "gsutil -m cp", "one SHA-256", "llm-assets"

Order = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Files of random bytes: `count` of `size_bytes` each."""

    name: str
    count: int
    size_bytes: int


DISK = (
    Scenario(name="disk, 1 GiB", count=1, size_bytes=1024 * MIB),
    Scenario(name="disk, 1000 small", count=1000, size_bytes=16 * 1024),
)
GCS = (
    Scenario(name="GCS, 4 x 48 MB", count=4, size_bytes=48_000_000),
    Scenario(name="GCS, 1000 small", count=1000, size_bytes=16 * 1024),
)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A scratch folder and the figures of everyone, by scenario and system."""

    folder: Path
    rounds: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    def disk(self, scenario: Scenario) -> None:
        source = self.files(scenario)

        def ours() -> Order:
            return {
                "folder": self.linked(source),
                "url": f"file:{self.fresh('store')}",
                "cache": self.fresh("cache"),
            }

        def raw() -> Order:
            return {"folder": source, "target": self.fresh("copy")}

        with self.mlflow() as address:
            self.time(
                scenario,
                "publish",
                "MLflow",
                "mlflow_upload",
                lambda: {"folder": source, "tracking_uri": address},
            )
        for system, way in (
            ("cp -r and sync", "cp_durably"),
            ("copytree and sync", "copytree_durably"),
            (HASH, "sha256"),
        ):
            self.time(scenario, "publish", system, way, raw)
        self.time(scenario, "publish", OURS, "publish", ours)
        published = ours()
        self.once("publish", published)
        fetches: dict[str, tuple[str, Callable[[], Order]]] = {
            "cp -r": ("cp", raw),
            "copytree": ("copytree", raw),
            HASH: ("sha256", raw),
            OURS: ("fetch", lambda: {**published, "cache": self.fresh("cache")}),
        }
        for system, (way, order) in fetches.items():
            self.time(scenario, "fetch", system, way, order, from_disk=source)

    def gcs(self, scenario: Scenario, tool: Order) -> None:
        source = self.files(scenario)
        there = {"bucket": BUCKET, "prefix": uuid.uuid4().hex}

        def upload() -> Order:
            return {"bucket": BUCKET, "folder": source, "prefix": uuid.uuid4().hex}

        def ours() -> Order:
            url = f"gs://{BUCKET}/{uuid.uuid4().hex}"
            return {"folder": self.linked(source), "url": url, "cache": self.fresh("cache")}

        def download() -> Order:
            return {**there, "target": self.fresh("copy")}

        for system, way in (("transfer manager", "transfer_manager_upload"), ("gcsfs", "gcsfs_put")):
            self.time(scenario, "publish", system, way, upload)
        to = f"gs://{BUCKET}"
        self.time(
            scenario,
            "publish",
            GSUTIL,
            "gsutil_cp",
            lambda: {**tool, "source": source, "target": f"{to}/{uuid.uuid4().hex}"},
        )
        self.time(scenario, "publish", OURS, "publish", ours)
        published = ours()
        self.once("publish", published)
        self.once("transfer_manager_upload", {**there, "folder": source})
        for system, way in (("transfer manager", "transfer_manager_download"), ("gcsfs", "gcsfs_get")):
            self.time(scenario, "fetch", system, way, download)
        source_url = f"{to}/{there['prefix']}"
        self.once("gsutil_cp", {**tool, "source": source, "target": source_url})
        self.time(
            scenario,
            "fetch",
            GSUTIL,
            "gsutil_cp",
            lambda: {**tool, "source": source_url, "target": self.fresh("copy")},
        )
        self.time(scenario, "fetch", OURS, "fetch", lambda: {**published, "cache": self.fresh("cache")})

    def time(
        self,
        scenario: Scenario,
        verb: str,
        system: str,
        way: str,
        order: Callable[[], Order],
        *,
        from_disk: Path | None = None,
    ) -> None:
        """The median of some rounds; `order` is asked anew for each, so that nobody finds its own files."""
        runs = []
        for _ in range(self.rounds):
            asked = order()
            subprocess.run(["sync"], check=True)  # what others wrote is not for this one to wait for
            if from_disk is not None:
                forget(from_disk)
            runs.append(self.once(way, asked))
        seconds = [float(run["seconds"]) for run in runs]
        row = {
            "system": f"{scenario.name}: {verb}, {system}",
            "seconds": statistics.median(seconds),
            "min_seconds": min(seconds),
            "max_seconds": max(seconds),
            "MB_per_s": scenario.count * scenario.size_bytes / 1e6 / statistics.median(seconds),
            "peak_bytes": max(int(run["peak_bytes"]) for run in runs),
        }
        self.rows.append(row)
        Console().print(f"{row['system']}: {row['seconds']:.2f} s", highlight=False)

    def once(self, way: str, order: Order) -> dict[str, float]:
        command = [sys.executable, "-m", "benchmarks.store_copies", way, json.dumps(order, default=str)]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{way} failed:\n{done.stderr[-3000:]}")
        return dict(json.loads(done.stdout.splitlines()[-1]))

    def ratio_to_raw(self, scenario: Scenario, verb: str) -> float:
        seconds = self.seconds(scenario, verb)
        return seconds[OURS] / _fastest_copy(seconds)

    def ratio_to_bound(self, scenario: Scenario, verb: str) -> float:
        seconds = self.seconds(scenario, verb)
        return seconds[OURS] / max(_fastest_copy(seconds), seconds.get(HASH, 0))

    def seconds(self, scenario: Scenario, verb: str) -> dict[str, float]:
        """The medians of one scenario, by system."""
        start = f"{scenario.name}: {verb}, "
        found = {row["system"]: float(row["seconds"]) for row in self.rows}
        return {system.removeprefix(start): s for system, s in found.items() if system.startswith(start)}

    def files(self, scenario: Scenario) -> Path:
        folder = self.fresh("files")
        folder.mkdir()
        for number in range(scenario.count):
            with (folder / f"part-{number:04}.safetensors").open("wb") as file:
                for start in range(0, scenario.size_bytes, 16 * MIB):
                    file.write(os.urandom(min(16 * MIB, scenario.size_bytes - start)))
        subprocess.run(["sync"], check=True)
        return folder

    def linked(self, source: Path) -> Path:
        """Publishing takes its folder away, so it gets one of its own, of hard links."""
        target = self.fresh("source")
        subprocess.run(["cp", "-al", source, target], check=True)
        return target

    def fresh(self, name: str) -> Path:
        return self.folder / f"{name}-{uuid.uuid4().hex[:8]}"

    @contextmanager
    def mlflow(self) -> Iterator[str]:
        home = self.fresh("mlflow")
        server = MlflowServer(home=home, port=free_port(), tokens=home / "tokens")
        server.ensure_ready()
        self.environment["MLFLOW_TRACKING_TOKEN"] = server.console.token("full")  # for its own client
        try:
            yield server.url
        finally:
            del self.environment["MLFLOW_TRACKING_TOKEN"]
            server.stop()


def _fastest_copy(seconds: dict[str, float]) -> float:
    return min(took for system, took in seconds.items() if system not in (HASH, OURS))


def forget(folder: Path) -> None:
    """Takes the files of a folder, and so whatever is hard-linked to them, out of the page cache."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def second_adapter_share_sent(folder: Path) -> float:
    """Publishes a base model and two adapters; what the second one's publication sends, over all of it."""
    from resources.artifact_store.artifacts import Line
    from resources.artifact_store.store import ArtifactStore

    store = ArtifactStore(
        url=f"gs://{BUCKET}/{uuid.uuid4().hex}", cache=str(folder / "cache"), cache_limit_bytes=2**34
    )
    base_line = Line(collection="base_models", tenant=None, name="base")
    line = Line(collection="adapters", tenant="team-a", name="bench")

    def made(name: str, size_bytes: int) -> Path:
        (folder / name).mkdir()
        (folder / name / "model.safetensors").write_bytes(os.urandom(size_bytes))
        (folder / name / "tokenizer.json").write_bytes(b"{}" * 50_000)
        return folder / name

    base = store.publish(base_line, made("base", 32_000_000), {"fingerprint": "base"})
    first = store.publish(line, made("first", 1_000_000), {"fingerprint": "first"}, parents=[base])
    second_folder = made("second", 1_000_000)
    with store.publication(line, "second", parents=[base]) as publication:
        for path in sorted(second_folder.iterdir()):
            publication.add(path.name, path)
        draft = publication.draft()
    second = store.finish(draft, {"fingerprint": "second", "base_uri": base.uri})
    assert first.digest != second.digest
    return publication.sent_bytes / (base.size_bytes + second.size_bytes)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3, help="how often each way is run")
    rounds = options.parse_args().rounds
    gsutil = environment_of("gsutil", PINNED_GSUTIL) / "bin" / "gsutil"
    with tempfile.TemporaryDirectory(prefix="store-") as name:
        folder = Path(name)
        bench = Bench(folder=folder, rounds=rounds)
        for scenario in DISK:
            bench.disk(scenario)
        with (
            gcs_server(folder / "gcs", bucket=BUCKET) as address,
            gcs_server(
                folder / "gcs-tls", bucket=BUCKET, scheme="https"
            ) as encrypted,  # gsutil takes no other
        ):
            emulator = {"STORAGE_EMULATOR_HOST": address, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
            bench.environment.update(emulator)
            os.environ.update(emulator)
            tool = {"gsutil": gsutil, "boto": boto_config(folder, encrypted)}
            for scenario in GCS:
                bench.gcs(scenario, tool)
            share = second_adapter_share_sent(folder)
    large_on_disk, small_on_disk = DISK
    judged = (large_on_disk, *GCS)
    bars = {
        "publish_ratio_to_bound": max(bench.ratio_to_bound(scenario, "publish") for scenario in judged),
        "fetch_ratio_to_bound": max(bench.ratio_to_bound(scenario, "fetch") for scenario in judged),
        "publish_ratio_to_raw": max(bench.ratio_to_raw(scenario, "publish") for scenario in judged),
        "fetch_ratio_to_raw": max(bench.ratio_to_raw(scenario, "fetch") for scenario in judged),
        "small_on_disk_publish_ratio": bench.ratio_to_raw(small_on_disk, "publish"),
        "small_on_disk_fetch_ratio": bench.ratio_to_raw(small_on_disk, "fetch"),
        "second_adapter_share_sent": share,
    }
    conclude("store", bench.rows, bars)


if __name__ == "__main__":
    main()
