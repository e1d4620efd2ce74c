"""What an interrupted merge has already finished: one line a file, beside the folder that is written.

Each line has the fingerprint of what is merged, so that nothing of another merge is taken over. It is
written when its file is whole; what it says is checked against the file's bytes all the same, because
after a power cut a journal may know more than the disk.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llm_assets.workers.failures import WorkerError

# Another number where the same inputs would give other bytes; part of every fingerprint of a merge.
MERGE_VERSION = 2
UNFINISHED = f".{os.getpid()}.partial"


@dataclass(frozen=True, kw_only=True)
class Written:
    """A finished file: its path in the output folder, size and SHA-256."""

    path: str
    size_bytes: int
    sha256: str

    def as_file(self) -> dict[str, Any]:
        """What the platform publishes it by."""
        return {"path": self.path, "size_bytes": self.size_bytes, "sha256": self.sha256}


class Journal:
    """The journal of one output folder. `finished` holds the files that need not be written again."""

    def __init__(self, output: Path, fingerprint: Mapping[str, Any]) -> None:
        self._path = output.with_name(f"{output.name}.journal.jsonl")
        self._output = output
        self._fingerprint = hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()
        known = (Written(**line["file"]) for line in self._lines() if line["of"] == self._fingerprint)
        self.finished = {each.path: each for each in known if _is_there(output, each)}
        self._begin()

    def add(self, written: Written) -> None:
        self.finished[written.path] = written
        with self._path.open("a", encoding="utf-8") as journal:
            journal.write(self._line(written))

    def _begin(self) -> None:
        """Leaves in the folder what is finished and nothing else."""
        if not self.finished:
            shutil.rmtree(self._output, ignore_errors=True)
        self._output.mkdir(parents=True, exist_ok=True)
        for file in self._output.iterdir():
            if file.name not in self.finished:
                shutil.rmtree(file) if file.is_dir() else file.unlink()
        anew = self._path.with_name(self._path.name + UNFINISHED)
        anew.write_text("".join(map(self._line, self.finished.values())), encoding="utf-8")
        anew.replace(self._path)

    def _line(self, written: Written) -> str:
        return json.dumps({"of": self._fingerprint, "file": asdict(written)}) + "\n"

    def _lines(self) -> list[dict[str, Any]]:
        if not self._path.is_file():
            return []
        whole = self._path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
        try:
            return [json.loads(line) for line in whole]
        except ValueError:
            return []  # torn by a crash of the machine: everything is merged again


def sha256_of(path: Path) -> str:
    """Read through a small buffer, so that resident memory stays flat."""
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_checked(source: Path, target: Path, wanted: str | None) -> str:
    """Copies a small file that is what it should be, and gives its SHA-256."""
    content = source.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    check_sha256(source, wanted, sha256)
    target.write_bytes(content)
    return sha256


def check_sha256(path: Path, wanted: str | None, found: str) -> None:
    """Raises WorkerError where a file is not the one that was promised."""
    if wanted is not None and wanted != found:
        raise WorkerError(
            f"{path} is damaged: its bytes have the SHA-256 {found[:12]}…, published was {wanted[:12]}…. "
            "Delete its folder and materialize it again."
        )


def _is_there(output: Path, written: Written) -> bool:
    path = output / written.path
    return path.is_file() and path.stat().st_size == written.size_bytes and sha256_of(path) == written.sha256
