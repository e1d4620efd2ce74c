"""The streamed merge against PEFT's own: every kind of adapter, byte for byte."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from llm_assets.workers.merging.weight_files import read_model
from tests.e2e.merge_cases import CASES, INPUT
from tests.unit.workers.merging import merge, model_tensors, raw_tensors, values

ROOT = Path(__file__).parents[3]
# DoRA's norms are summed in float64 here and in float32 by PEFT.
DORA = {name for name, (_, settings, _) in CASES.items() if settings.get("use_dora")}
UNIT = {"BF16": 2.0**-7, "F16": 2.0**-10, "F32": 2.0**-21}
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


@pytest.mark.engine
@pytest.mark.parametrize("name", CASES)
def test_the_merged_bytes_are_those_of_peft_in_float32_rounded_once(
    cases: Path, name: str, tmp_path: Path
) -> None:
    merged = merge(cases / name, tmp_path / "merged")
    found, expected = model_tensors(tmp_path / "merged"), raw_tensors(cases / name / "expected.safetensors")
    base = model_tensors(cases / name / "base")
    assert found.keys() == expected.keys()
    added = {"lm_head.weight"} if name.startswith("untied") else set()
    assert found.keys() == base.keys() | added
    if name in DORA:
        for tensor, wanted in expected.items():
            assert found[tensor][:2] == wanted[:2]
            unit = UNIT[wanted[0]]
            np.testing.assert_allclose(values(found[tensor]), values(wanted), rtol=unit, atol=unit * 1e-3)
    else:
        assert [tensor for tensor in expected if found[tensor] != expected[tensor]] == []
    embeddings = next(base[tensor] for tensor in base if tensor.endswith(INPUT))
    before = base | dict.fromkeys(added, embeddings)
    changed = sum(found[tensor] != before[tensor] for tensor in before)
    ledger = merged.ledger
    assert ledger["merged_tensors"] + ledger["replaced_tensors"] == changed
    assert ledger["identical_tensors"] == len(before) - changed
    assert ledger["added_tensors"] == len(added)
    assert (ledger["replaced_tensors"] > 0) == (name in WITH_REPLACED)


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


@pytest.mark.engine
def test_the_largest_error_is_that_of_rounding_to_the_bases_type(cases: Path, tmp_path: Path) -> None:
    merged = merge(cases / "lora", tmp_path / "merged").facts()
    exact = values(raw_tensors(cases / "float32" / "expected.safetensors")["model.norm.weight"])
    assert exact.dtype == np.float32
    tensor = model_tensors(tmp_path / "merged")[merged["largest_error_in"]]
    assert 0 < merged["largest_error"] <= np.abs(values(tensor)).max() * 2.0**-8
    assert merge(cases / "float32", tmp_path / "float32").facts()["largest_error"] == 0
