"""Causes that a person can act on."""

import errno
from pathlib import Path

import pytest

from llm_assets.workers.failures import WorkerError, cause_of


def test_a_full_disk_names_the_folder_and_what_is_free(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as full:
        Path("/dev/full").write_bytes(b"x")
    wrapped = RuntimeError("could not save")
    wrapped.__cause__ = full.value
    cause = cause_of(wrapped, tmp_path / "not" / "made" / "yet")
    assert cause.startswith(f"No disk space is left for {tmp_path}/not/made/yet (")
    assert "MiB free" in cause


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("PytorchStreamWriter failed writing file data/0"), "No disk space is left"),
        (RuntimeError("[enforce fail at inline_container.cc] . unexpected pos 64"), "No disk space is left"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "No disk space is left"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "per_device_train_batch_size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "machine ran out of memory"),
        (RuntimeError("Cannot find sufficient samples, consider increasing dataset size."), "too short"),
        (WorkerError("as it\nstands"), "as it stands"),
        (ValueError("Template no_such does not exist."), "ValueError: Template no_such does not exist."),
    ],
)
def test_a_cause_is_one_line_that_says_what_would_help(
    error: Exception, expected: str, tmp_path: Path
) -> None:
    cause = cause_of(error, tmp_path)
    assert expected in cause
    assert "\n" not in cause
