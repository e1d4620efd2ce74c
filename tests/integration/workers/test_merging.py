"""The streamed merge against PEFT's own, for every kind of adapter, and its bytes on every kernel of BLAS."""

import hashlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_assets.workers.merging.weight_files import read_model
from tests.e2e.merge_cases import CASES, INPUT
from tests.unit.workers.merging import Array, RawTensor, merge, model_tensors, raw_tensors, values

ROOT = Path(__file__).parents[3]
# PEFT computes in float32. The share of weights whose last bit comes out otherwise for that, and for
# weights that are float32 themselves, the greatest difference (sums of a few that nearly cancel).
OTHERWISE = 1e-3
FLOAT32_NOISE = 2.0**-21
SETTINGS = {"OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES"}
KERNELS = ("Prescott", "Nehalem", "Sandybridge", "Haswell", "Zen")
KERNELS_OF_AVX512 = ("SkylakeX", "Cooperlake", "SapphireRapids")  # an illegal instruction elsewhere
WITH_REPLACED = {
    "modules_to_save",
    "bias_all",
    "tied_saved_alike",
    "untied_both",
    "untied_output",
    "untied_input",
    "untied_one_file",
}


@pytest.fixture(scope="module")
def cases(train_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cases, made by one process of the train engine."""
    folder = tmp_path_factory.mktemp("cases")
    subprocess.run(
        [train_python, "-m", "tests.e2e.merge_cases", folder],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        check=True,
    )
    return folder


def rounded(wanted: Array, name: str, dtype: str) -> Array:
    """The stored integers of float32 values: bfloat16 by the numbers that belong to the tensor's name."""
    if dtype == "F16":
        return wanted.astype(np.float16).view(np.uint16)
    rows, columns = wanted.shape if wanted.ndim == 2 else (1, wanted.size)
    drawn = hashlib.shake_128(name.encode()).digest(2 * (rows + columns))
    numbers = struct.unpack(f"<{rows + columns}H", drawn)
    row, column = np.array(numbers[:rows]), np.array(numbers[rows:])
    number = ((row[:, None] + column[None, :]) % 2**16).reshape(wanted.shape)
    return ((wanted.view(np.uint32) + number) // 2**16).astype(np.uint16)


def differing(found: RawTensor, wanted: Array, name: str) -> float:
    """The share of weights that are not PEFT's, rounded; none of them by more than one in the last bit.

    Where two values nearly cancel, that is one in the last bit of those.
    """
    dtype, shape, raw = found
    assert shape == wanted.shape
    if dtype == "F32":
        np.testing.assert_allclose(values(found), wanted, rtol=0, atol=FLOAT32_NOISE)
        return 0.0
    stored = np.frombuffer(raw, np.uint16).reshape(shape).astype(np.int64)
    apart = np.abs(stored - rounded(wanted, name, dtype).astype(np.int64))
    assert ((apart <= 1) | (np.abs(values(found) - wanted) <= FLOAT32_NOISE)).all()
    return float((apart > 0).mean())


@pytest.mark.engine
@pytest.mark.parametrize("name", CASES)
def test_the_merged_weights_are_those_of_peft_in_float32_rounded(
    cases: Path, name: str, tmp_path: Path
) -> None:
    merged = merge(cases / name, tmp_path / "merged")
    found, expected = model_tensors(tmp_path / "merged"), raw_tensors(cases / name / "expected.safetensors")
    base = model_tensors(cases / name / "base")
    assert found.keys() == expected.keys()
    added = {"lm_head.weight"} if name.startswith("untied") else set()
    assert found.keys() == base.keys() | added
    embeddings = next(base[tensor] for tensor in base if tensor.endswith(INPUT))
    before = base | dict.fromkeys(added, embeddings)
    for tensor, wanted in expected.items():
        assert found[tensor][:2] == before[tensor][:2]
        assert differing(found[tensor], values(wanted), tensor) <= OTHERWISE
    changed = sum(found[tensor] != before[tensor] for tensor in before)
    ledger = merged.ledger
    assert ledger["merged_tensors"] + ledger["replaced_tensors"] == changed
    assert ledger["identical_tensors"] == len(before) - changed
    assert ledger["added_tensors"] == len(added)
    assert (ledger["replaced_tensors"] > 0) == (name in WITH_REPLACED)


def bytes_with(cases: Path, output: Path, **environment: str) -> dict[str, Any]:
    """What `merging_bytes` finds in a process with these settings."""
    kept = {key: value for key, value in os.environ.items() if key not in SETTINGS}
    command: list[str | Path] = [sys.executable, "-m", "tests.unit.workers.merging_bytes", cases, output]
    done = subprocess.run(
        command, cwd=ROOT, env=kept | environment, check=True, capture_output=True, text=True
    )
    return dict(json.loads(done.stdout))


@pytest.mark.engine
def test_the_bytes_are_the_same_on_every_kernel_that_this_processor_runs(cases: Path, tmp_path: Path) -> None:
    kernels = KERNELS + (KERNELS_OF_AVX512 if " avx512f " in Path("/proc/cpuinfo").read_text() else ())
    found = [bytes_with(cases, tmp_path / "output", OPENBLAS_CORETYPE=kernel) for kernel in kernels]
    plain = bytes_with(cases, tmp_path / "output", NPY_DISABLE_CPU_FEATURES=" ".join(found[0]["features"]))
    assert plain["features"] == [], "numpy runs its plainest loops"
    assert len({each["kernel"] for each in found}) >= 3
    assert len({each["float32"] for each in found}) >= 3, "BLAS itself gives other bytes on each"
    assert len({each["float64"] for each in found}) >= 3
    assert {each["merged"] for each in (*found, plain)} == {found[0]["merged"]}


@pytest.mark.engine
def test_shards_headers_and_configuration_stay_those_of_the_base(cases: Path, tmp_path: Path) -> None:
    case, output = cases / "some_layers", tmp_path / "merged"
    merge(case, output)
    for path in (case / "base").iterdir():
        copy = output / path.name
        assert copy.stat().st_size == path.stat().st_size
        if path.suffix != ".safetensors":
            assert copy.read_bytes() == path.read_bytes()
            assert copy.stat().st_ino != path.stat().st_ino, "what may be written anew is no link"
    for file in read_model(case / "base"):
        start = file.path.read_bytes()[: file.data_start]
        assert (output / file.path.name).read_bytes()[: file.data_start] == start
    written = [file.path.name for file in read_model(output) if file.path.stat().st_nlink == 1]
    changed = "model.layers.1.self_attn.q_proj.weight"
    index = json.loads((case / "base" / "model.safetensors.index.json").read_text())
    assert written in ([], [index["weight_map"][changed]])  # none where the file system has reflinks
