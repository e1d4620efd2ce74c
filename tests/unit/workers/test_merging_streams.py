"""How a merge streams: several adapters at once, untouched files, damage, kills, memory. No engine needed."""

import hashlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from llm_assets.workers.failures import WorkerError
from llm_assets.workers.merging.adapters import ADAPTER_WEIGHTS
from llm_assets.workers.merging.journal import sha256_of
from llm_assets.workers.merging.models import Request, merge_models
from tests.unit.workers.merging import (
    Array,
    Remembered,
    lora,
    merge,
    write_adapter,
    write_base,
)

ROOT = Path(__file__).parents[3]
ROWS, COLUMNS = 48, 32
FILES = tuple(f"model-{number:05}.safetensors" for number in range(1, 5))
KILLS = 30


def module(file: str) -> str:
    return f"model.layers.{FILES.index(file)}.mlp.up_proj"


def write_case(folder: Path, adapted: tuple[str, ...] = FILES, rows: int = ROWS, seed: int = 0) -> Path:
    """A base of four files, a matrix and a norm in each, and an adapter of the `adapted` ones."""
    rng = np.random.default_rng(0)
    shards: dict[str, dict[str, Array]] = {}
    for file in FILES:
        name = module(file)
        shards[file] = {
            f"{name}.weight": rng.standard_normal((rows, COLUMNS), np.float32),
            f"{name}.norm.weight": rng.standard_normal(COLUMNS, np.float32),
        }
    write_base(folder / "base", shards)
    factors: dict[str, Array] = {}
    for file in adapted:
        factors |= lora(module(file), rows, COLUMNS, seed=seed)
    write_adapter(folder / "adapter", factors)
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.iterdir()}


def test_every_file_is_told_when_it_is_whole_with_the_hash_of_its_bytes(tmp_path: Path) -> None:
    report = Remembered()
    merged = merge(write_case(tmp_path), tmp_path / "output", report)
    found = {file["path"]: file["sha256"] for file in report.files}
    assert list(found) == list(FILES)
    assert {file.path: file.sha256 for file in merged.files} == hashes(tmp_path / "output")
    for path, sha256 in found.items():
        content = (tmp_path / "output" / path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == sha256


def test_files_that_no_adapter_touches_are_the_bases_own(tmp_path: Path) -> None:
    case = write_case(tmp_path, adapted=FILES[1:2])
    known = hashes(case / "base") | {FILES[3]: "the hash that the base was published with"}
    report = Remembered()
    merged = merge(case, tmp_path / "output", report, base_files=known)
    assert merged.ledger["identical_tensors"] == 7
    for file in FILES:
        same = (tmp_path / "output" / file).read_bytes() == (case / "base" / file).read_bytes()
        assert same == (file != FILES[1])
    told = {file["path"]: file["sha256"] for file in report.files}
    assert told[FILES[3]] == known[FILES[3]], "it is known, so it is not read"
    assert sum("no adapter touches it" in line for line in report.lines) == 3


def test_several_adapters_in_one_pass_give_what_each_gives_alone(tmp_path: Path) -> None:
    adapters = {"all": (FILES, 1), "one": (FILES[:1], 2), "other": (FILES[2:], 3)}
    for name, (adapted, seed) in adapters.items():
        write_case(tmp_path / name, adapted, seed=seed)
        merge(tmp_path / name, tmp_path / "alone" / name)
    requests = [
        Request(
            adapter_folder=tmp_path / name / "adapter",
            output_folder=tmp_path / "together" / name,
            adapter_files={},
        )
        for name in adapters
    ]
    report = Remembered()
    together = merge_models(tmp_path / "all" / "base", requests, {}, report)  # type: ignore[arg-type]
    for name, merged in zip(adapters, together, strict=True):
        assert hashes(merged.folder) == hashes(tmp_path / "alone" / name)
        assert merged.ledger["merged_tensors"] == len(adapters[name][0])
    assert sum(": merged (" in line for line in report.lines) == len(FILES), "each file is read once"


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("file", [FILES[2], "config.json", ADAPTER_WEIGHTS])
def test_one_flipped_byte_is_refused_by_the_files_name(tmp_path: Path, file: str) -> None:
    case = write_case(tmp_path)
    base, adapter = hashes(case / "base"), hashes(case / "adapter")
    damaged = case / ("adapter" if file in adapter else "base") / file
    flip(damaged, -3 if damaged.suffix == ".safetensors" else damaged.read_bytes().index(b"llama"))
    with pytest.raises(WorkerError, match=rf"{damaged} is damaged"):
        merge(case, tmp_path / "output", base_files=base, adapter_files=adapter)
    assert not (tmp_path / "output" / file).exists()


def test_what_an_interrupted_merge_of_other_inputs_left_is_not_taken_over(tmp_path: Path) -> None:
    case, output = write_case(tmp_path), tmp_path / "output"
    merge(case, output)
    first = hashes(output)
    (output / "stray.txt").write_text("of another merge")
    write_case(tmp_path, seed=9)
    report = Remembered()
    merge(case, output, report)
    assert not any("before the interruption" in line for line in report.lines)
    assert not (output / "stray.txt").exists()
    assert all(hashes(output)[file] != first[file] for file in FILES)


def test_a_finished_file_that_was_damaged_since_is_merged_again(tmp_path: Path) -> None:
    case, output = write_case(tmp_path), tmp_path / "output"
    merge(case, output)
    whole = hashes(output)
    flip(output / FILES[0], -1)
    report = Remembered()
    merge(case, output, report)
    assert hashes(output) == whole
    again = [line.partition(":")[0] for line in report.lines if ": merged (" in line]
    assert again == [FILES[0]]


def test_killed_at_thirty_moments_the_bytes_are_the_same_and_whole_files_are_kept(tmp_path: Path) -> None:
    """SIGKILL at random moments; a file that was whole before a kill is never written again."""
    case = write_case(tmp_path, rows=90_000)
    merge(case, tmp_path / "undisturbed")
    expected, output = hashes(tmp_path / "undisturbed"), tmp_path / "output"
    moments, kills, completions = random.Random(0), 0, 0
    command = [sys.executable, "-m", "tests.unit.workers.merging", str(case), str(output)]
    longest = _seconds(command, output)
    kept: dict[str, tuple[int, int]] = {}
    while kills < KILLS or completions == 0:
        process, started = subprocess.Popen(command, cwd=ROOT), time.monotonic()
        try:
            code = process.wait(timeout=moments.uniform(longest / 5, longest * 0.8) if kills < KILLS else 60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        else:
            assert code == 0
            assert hashes(output) == expected
            completions += 1
            longest = min(longest, time.monotonic() - started)  # or, once others ended, no kill came in time
        now = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in output.glob("model-*s")}
        now = {name: identity for name, identity in now.items() if name in _journal(output)}
        assert kept.items() <= now.items(), "a whole file was written again"
        kept = now
        if completions and process.returncode == 0:
            kept = {}
            for path in output.iterdir():
                path.unlink()


def _seconds(command: list[str], output: Path) -> float:
    started = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=True)
    for path in output.iterdir():
        path.unlink()
    return time.monotonic() - started


def _journal(output: Path) -> str:
    path = output.with_name(f"{output.name}.journal.jsonl")
    return path.read_text() if path.exists() else ""


def test_memory_stays_flat_however_large_the_model_is(tmp_path: Path) -> None:
    """Twelve times the tensor, the same peak: blocks and factors are held, not tensors."""
    peaks = []
    script = (
        "import sys; from pathlib import Path; from tests.unit.workers.merging import merge;"
        "from llm_assets.workers.machine import peak_resident_bytes as peak;"
        "merge(Path(sys.argv[1]), Path(sys.argv[2])); print(peak())"
    )
    for rows in (10_000, 120_000):
        case = tmp_path / str(rows)
        write_base(case / "base", {"model.safetensors": {"up.weight": np.ones((rows, 512), np.float32)}})
        write_adapter(case / "adapter", lora("up", rows, 512))
        command: list[str | Path] = [sys.executable, "-c", script, case, case / "output"]
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
        assert (case / "output" / "model.safetensors").stat().st_size > rows * 512 * 2
    assert peaks[1] < peaks[0] + 40 * 2**20, "the larger tensor alone has 123 MB"
