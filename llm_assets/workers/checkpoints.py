"""Which checkpoint a training goes on from after it was stopped, however it was stopped.

A checkpoint is whole once `whole.json` is in it, which is written last and holds the size of every
file and the identity of the training. A folder without it, with a file missing or of another size
(the engine was killed while it wrote or while it deleted), or of another training is dropped. Not
covered: bytes that rot on the disk without changing a file's size; DeepSpeed and FSDP, which keep the
optimizer in a form of their own (no `optimizer.pt`): such a training starts anew.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

WHOLE = "whole.json"
OPTIMIZER = "optimizer.pt"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A training's state after `step` optimizer steps, which took `train_seconds` in all."""

    folder: Path
    step: int
    train_seconds: float


def identity(recipe: Mapping[str, object], template: str, dataset_folder: Path) -> str:
    """Equal for trainings that may share checkpoints: same recipe, template and training rows."""
    digest = hashlib.sha256(json.dumps([recipe, template], sort_keys=True, default=str).encode())
    for file in sorted(dataset_folder.glob("*.json*")):
        if file.name != "statistics.json":
            digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def seal(folder: Path, *, step: int, train_seconds: float, training: str) -> None:
    """Marks a checkpoint as whole; a rename, so that the mark is there at once or not at all."""
    facts = {"step": step, "train_seconds": train_seconds, "training": training, "sizes": _sizes(folder)}
    written = folder / f"{WHOLE}.tmp"
    written.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    written.replace(folder / WHOLE)


def last_whole(folder: Path, training: str) -> Checkpoint | None:
    """The newest checkpoint to go on from. Everything else in the folder is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    read = (_read(path, training) for path in _candidates(folder))
    whole = [checkpoint for checkpoint in read if checkpoint]
    kept = {checkpoint.folder for checkpoint in whole}
    _remove_all_but(kept, folder)
    return max(whole, key=lambda checkpoint: checkpoint.step, default=None)


def drop_unfinished(folder: Path) -> None:
    """Gives back the disk that an ended training holds beside its sealed checkpoints."""
    if folder.is_dir():
        _remove_all_but({path for path in _candidates(folder) if (path / WHOLE).is_file()}, folder)


def _remove_all_but(kept: set[Path], folder: Path) -> None:
    for path in folder.iterdir():
        if path not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _candidates(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob("checkpoint-*") if path.is_dir())


def _read(folder: Path, training: str) -> Checkpoint | None:
    try:
        facts = json.loads((folder / WHOLE).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    sizes = _sizes(folder)
    if facts["training"] != training or facts["sizes"] != sizes or OPTIMIZER not in sizes:
        return None
    return Checkpoint(folder=folder, step=facts["step"], train_seconds=facts["train_seconds"])


def _sizes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(WHOLE)
    }
