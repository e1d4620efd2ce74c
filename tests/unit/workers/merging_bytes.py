"""The bytes that merges give in this process: `python -m tests.unit.workers.merging_bytes CASES OUTPUT`.

Prints the BLAS kernel that numpy runs on, what numpy's own loops are compiled for and this process may run,
and SHA-256 of all merged models; of plain products too, which do differ from kernel to kernel.
"""

import ctypes
import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np

from llm_assets.workers.merging.weight_files import read_model
from tests.unit.workers.merging import merge


def kernel() -> str:
    """The name that OpenBLAS gives the kernel it has chosen."""
    maps = Path("/proc/self/maps").read_text().split()
    library = ctypes.CDLL(next(each for each in maps if "openblas" in each))
    name = library.scipy_openblas_get_corename64_
    name.restype = ctypes.c_char_p
    return str(name().decode())


def merged(cases: Path, output: Path) -> str:
    digest = hashlib.sha256()
    for case in sorted(path for path in cases.iterdir() if path.is_dir()):
        shutil.rmtree(output, ignore_errors=True)
        merge(case, output)
        for file in read_model(output):
            digest.update(file.path.read_bytes())
    return digest.hexdigest()


def plain(dtype: type[np.floating]) -> str:
    rng = np.random.default_rng(0)
    digest = hashlib.sha256()
    for rank in (5, 64, 300):
        left, right = rng.standard_normal((96, rank)), rng.standard_normal((rank, 160))
        digest.update((left.astype(dtype) @ right.astype(dtype)).tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    numpy = np._core._multiarray_umath  # type: ignore[attr-defined]  # numpy says it nowhere else
    found = {
        "kernel": kernel(),
        "features": [name for name in numpy.__cpu_dispatch__ if numpy.__cpu_features__[name]],
        "merged": merged(Path(sys.argv[1]), Path(sys.argv[2])),
        "float32": plain(np.float32),
        "float64": plain(np.float64),
    }
    print(json.dumps(found))
