"""The tiny model with two tensors of embeddings. Run in the train engine: `… untied_model FOLDER`."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.e2e.work_orders import ROOT


def untie(model: Path, folder: Path, train_python: Path) -> Path:
    """A copy in `folder` with output embeddings of its own."""
    shutil.copytree(model, folder)
    subprocess.run([train_python, "-m", "tests.e2e.untied_model", folder], check=True, cwd=ROOT)
    return folder


def main(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    weights, config = folder / "model.safetensors", folder / "config.json"
    tensors = load_file(weights)
    torch.manual_seed(3)
    embeddings = tensors["model.embed_tokens.weight"]
    tensors["lm_head.weight"] = (torch.randn(embeddings.shape) / 10).to(embeddings.dtype)
    save_file(tensors, weights, metadata={"format": "pt"})
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tie_word_embeddings": False}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
