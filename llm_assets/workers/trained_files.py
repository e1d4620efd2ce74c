"""What of a training's files is kept: weights as safetensors, configuration, tokenizer. No pickles.

The same training leaves the same bytes: paths of this machine and the order of sets are taken out
of PEFT's configuration.
"""

import json
import os
import shutil
from pathlib import Path

from llm_assets.workers.failures import WorkerError

KEPT_SUFFIXES = (".safetensors", ".json", ".jinja", ".model", ".txt")
# The trainer's own records; what they say is in the result and in training/trainer_log.jsonl.
RECORDS = {"trainer_state.json", "all_results.json", "train_results.json", "eval_results.json"}
MANIFEST = "manifest.json"  # of the artifact that `trained` may be: every artifact has its own
ADAPTER_CONFIG = "adapter_config.json"


def keep(trained: Path, output: Path, base_model: str | None) -> None:
    """Puts the final adapter or model of `trained` into `output`, by hard link where that works."""
    output.mkdir(parents=True, exist_ok=True)
    for file in sorted(trained.iterdir()):
        if file.is_file() and file.suffix in KEPT_SUFFIXES and file.name not in {*RECORDS, MANIFEST}:
            link_or_copy(file, output / file.name)
    if not list(output.glob("*.safetensors")):
        raise WorkerError(f"The engine left no safetensors weights in {trained}.")
    config = output / ADAPTER_CONFIG
    if config.is_file():
        _rewrite(config, base_model)


def link_or_copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)  # an input may be a link, an output may not
    except OSError:
        shutil.copyfile(source, target)


def _rewrite(config: Path, base_model: str | None) -> None:
    """PEFT writes the base's path on this machine and target modules in the order of a set."""
    content = json.loads(config.read_text(encoding="utf-8"))
    content["base_model_name_or_path"] = base_model
    for key, value in content.items():
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            content[key] = sorted(value)
    config.unlink()
    config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
