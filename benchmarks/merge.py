"""What a merge costs: the streamed merge beside LLaMA-Factory's export, PEFT and a plain copy of the base.

    make bench BENCH=merge

Three sharded Llamas in bfloat16 (0.4, 1.3 and 3.1 GB), LoRA of rank 16 on every linear layer. Each system is
a whole process, started with nothing written still on its way to the disk. `from disk`: none of base and
adapter is in the page cache, as when a base was fetched some time ago; the bars compare these. `cached`: all
of it is, which leaves the processor's work alone. The streamed merge checks the SHA-256 of all it reads and
makes that of all it writes, so what comes after reads nothing again; the others do neither. Every tensor of
every streamed result is compared with what it has to be on every machine, computed by torch; one wrong byte
is a failure. Two cores are busy throughout: SHA-256 of what is read and written takes about half of their
time, the sum a third, so the processor bounds `ratio_to_copy` where the disk gives more than 0.6 GB/s.

`speedup_over_export`: seconds of the export over those of the stream, at the largest size.
`memory_of_export`: peak resident memory of the stream over that of the export, at the largest size.
`ratio_to_copy`: seconds of the stream over those of `cp -r` of the base, at the largest size.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, DAGSTER_PIPES_MESSAGES_ENV_VAR, encode_param
from rich.console import Console

from benchmarks.measuring import BenchmarkError, Measured, conclude, measure
from benchmarks.merge_models import SIZES
from llm_assets.installation.settings import find_settings
from resources.artifact_store.artifacts import paths_of
from resources.engines.installation import engine_python
from resources.hashes import sha256_of
from tests.e2e.work_orders import pipes_context

ROOT = Path(__file__).parent.parent
STREAM, EXPORT, PEFT, COPY = "llm-assets stream", "llamafactory-cli export", "peft", "cp -r of the base"
FROM_DISK, CACHED = "from disk", "cached"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=1, help="how often each system is run")
    options.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    chosen = options.parse_args()
    rows: list[dict[str, Any]] = []
    for size in chosen.sizes:
        with tempfile.TemporaryDirectory(prefix="merge-", dir=_scratch()) as folder:
            rows += Merge(Path(folder), size).rows(chosen.rounds, largest=size == chosen.sizes[-1])
    largest = {(row["system"], row["base"]): row for row in rows if row["size"] == chosen.sizes[-1]}
    stream, export, copy = (largest[system, FROM_DISK] for system in (STREAM, EXPORT, COPY))
    bars = {
        "speedup_over_export": export["seconds"] / stream["seconds"],
        "memory_of_export": stream["peak_bytes"] / export["peak_bytes"],
        "ratio_to_copy": stream["seconds"] / copy["seconds"],
    }
    conclude("merge", rows, bars)


def _scratch() -> Path:
    """Beside the artifact store: there, and not in a memory file system, models are merged."""
    home = find_settings().home
    home.mkdir(parents=True, exist_ok=True)
    return home


class Merge:
    """One size of model, in a scratch folder."""

    def __init__(self, folder: Path, size: str) -> None:
        self.folder, self.size = folder, size
        self.output, self.log = folder / "output", folder / "log"
        self.python = engine_python(find_settings().engines, "train")
        self.env = os.environ | {
            "PYTHONPATH": str(ROOT),
            "HF_HUB_OFFLINE": "1",
            "DISABLE_VERSION_CHECK": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }

    def rows(self, rounds: int, *, largest: bool) -> list[dict[str, Any]]:
        Console().print(f"{self.size}: makes a base and an adapter …")
        self._engine("benchmarks.merge_models", "make", self.folder, self.size)
        base = self.folder / "base"
        self.base_files = {path: sha256_of(base / path) for path in paths_of(base)}
        systems: list[tuple[str, str, Callable[[], list[str]]]] = [
            (STREAM, FROM_DISK, self._stream),
            (EXPORT, FROM_DISK, self._export),
            (PEFT, FROM_DISK, self._peft),
            (COPY, FROM_DISK, self._copy),
        ]
        if largest:
            systems += [(STREAM, CACHED, self._stream), (COPY, CACHED, self._copy)]
        runs: dict[tuple[str, str], list[Measured]] = {}
        for number in range(rounds):
            for system, cached, command in systems:
                Console().print(f"{self.size}, round {number + 1} of {rounds}: {system}, {cached} …")
                runs.setdefault((system, cached), []).append(self._run(command(), cached))
                if system == STREAM:
                    self._check()
        return [self._row(system, base, found) for (system, base), found in runs.items()]

    def _row(self, system: str, base: str, runs: list[Measured]) -> dict[str, Any]:
        seconds = [run.seconds for run in runs]
        return {
            "system": system,
            "size": self.size,
            "base": base,
            "seconds": statistics.median(seconds),
            "min_seconds": min(seconds),
            "max_seconds": max(seconds),
            "peak_bytes": max(run.peak_bytes for run in runs),
            "rounds": len(runs),
        }

    def _run(self, command: list[str], base: str) -> Measured:
        shutil.rmtree(self.output, ignore_errors=True)
        self.output.with_name("output.journal.jsonl").unlink(missing_ok=True)
        os.sync()
        for file in sorted(self.folder.glob("base/*")) + sorted(self.folder.glob("adapter/*")):
            _evict(file) if base == FROM_DISK else file.read_bytes()
        return measure(command, env=self.env, cwd=ROOT, log=self.log, mark=self.output)

    def _stream(self) -> list[str]:
        adapter = {"adapter_folder": str(self.folder / "adapter"), "output_folder": str(self.output)}
        order = {
            "base_folder": str(self.folder / "base"),
            "base_files": self.base_files,
            "adapters": [adapter],
        }
        context, messages = self.folder / "context.json", self.folder / "messages.jsonl"
        context.write_text(json.dumps(pipes_context(order)))
        messages.write_text("")
        self.env[DAGSTER_PIPES_CONTEXT_ENV_VAR] = encode_param({"path": str(context)})
        self.env[DAGSTER_PIPES_MESSAGES_ENV_VAR] = encode_param({"path": str(messages)})
        return [str(self.python), "-m", "llm_assets.workers.merge_weights"]

    def _export(self) -> list[str]:
        arguments = {
            "model_name_or_path": str(self.folder / "base"),
            "adapter_name_or_path": str(self.folder / "adapter"),
            "template": "smollm2",
            "export_dir": str(self.output),
            "export_size": 1,
            "export_device": "cpu",
        }
        (self.folder / "export.yaml").write_text(json.dumps(arguments))
        return [
            str(self.python.with_name("llamafactory-cli")),
            "export",
            str(self.folder / "export.yaml"),
        ]

    def _peft(self) -> list[str]:
        return [
            str(self.python),
            "-m",
            "benchmarks.merge_models",
            "peft",
            str(self.folder),
            str(self.output),
        ]

    def _copy(self) -> list[str]:
        return ["cp", "-r", str(self.folder / "base"), str(self.output)]

    def _check(self) -> None:
        found = json.loads(self._engine("benchmarks.merge_models", "check", self.folder, self.output))
        if found["wrong"]:
            raise BenchmarkError(
                f"{found['wrong']} of {found['tensors']} merged tensors are not what they have to be."
            )

    def _engine(self, module: str, *arguments: Path | str) -> str:
        command = [str(self.python), "-m", module, *map(str, arguments)]
        done = subprocess.run(command, env=self.env, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchmarkError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
        return done.stdout


def _evict(file: Path) -> None:
    """Out of the page cache; needs no rights, because the pages are clean."""
    descriptor = os.open(file, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


if __name__ == "__main__":
    main()
