"""What the platform costs over a plain shell script that does the same work with the same engines.

    make bench BENCH=overhead

`ratio_to_script`: `llm-assets run` (validation, lineage, registry, card, verified deployment) over a
script that trains, exports, serves and asks. Both start with the engines installed, the base model
at hand, and no server running; the rounds alternate, and medians are compared. The script is given
what the platform finds out by itself (weights in float32, threads that do not spin, vLLM's worker in
the engine's process), so that what is compared is orchestration.
`rerun_ratio`: the same command with nothing changed, over its first run.
`load_5000_tenants_s`, `ui_first_graph_s`: a large catalog's code location; see code_location.py.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.code_location import code_location
from benchmarks.measuring import Measured, conclude, measure, row
from llm_assets.catalog.loading import load_catalog
from llm_assets.installation.settings import find_settings
from resources.engines.installation import engine_python

ROOT = Path(__file__).parent.parent
MODEL, TENANT = "support_bot", "team-a"
IN_FLOAT32 = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="float32").save_pretrained(sys.argv[2])
AutoTokenizer.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2])
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=1, help="how often each system is run")
    rounds = options.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        bench = Overhead(Path(folder))
        first, again, script = [], [], []
        try:
            bench.prepare()
            for number in range(rounds):
                Console().print(f"round {number + 1} of {rounds}: llm-assets run, again, script …")
                first.append(bench.llm_assets(fresh=True))
                again.append(bench.llm_assets(fresh=False))
                bench.down()
                script.append(bench.script(number))
        finally:
            bench.down()
    location_rows, location_bars = code_location()
    rows = [
        row("shell script: train, export, serve, ask", script),
        row("llm-assets run", first),
        row("llm-assets run, nothing changed", again),
    ]
    script_s, ours, again_s = (row["seconds"] for row in rows)
    bars = {"ratio_to_script": ours / script_s, "rerun_ratio": again_s / ours, **location_bars}
    conclude("overhead", [*rows, *location_rows], bars)


class Overhead:
    """A project of its own in a temporary folder, sharing the engines of this one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        settings = find_settings()
        self.engines, self.catalog, self.cache = settings.engines, settings.catalog, settings.cache
        self.home = folder / "home"
        self.log = folder / "log"
        self.env = os.environ | {
            "LLM_ASSETS_ROOT": str(ROOT),
            "LLM_ASSETS_CATALOG": str(self.catalog),
            "LLM_ASSETS_HOME": str(self.home),
            "LLM_ASSETS_ENGINES": str(self.engines),
            "LLM_ASSETS_UI_PORT": "3917",
            "LLM_ASSETS_MLFLOW_PORT": "5917",
        }

    def prepare(self) -> None:
        """The base model and the dataset in the store, from a first run that is not counted."""
        if self.cache.is_dir():
            shutil.copytree(self.cache, self.home / "cache")
        self._llm_assets()
        self.down()
        base = _only(
            self.home / "store" / "base_models" / load_catalog(self.catalog).models[MODEL].base_model
        )
        train = engine_python(self.engines, "train")
        subprocess.run(
            [train, "-c", IN_FLOAT32, base, self.folder / "float32"], check=True, capture_output=True
        )

    def llm_assets(self, *, fresh: bool) -> Measured:
        """`fresh`: everything but the base model has to be made."""
        if fresh:
            for kept_out in ("datasets", "adapters", "models", "cards"):
                shutil.rmtree(self.home / "store" / kept_out)
            for state in ("mlflow", "promotions", "serving", "work"):
                shutil.rmtree(self.home / state)
        return self._llm_assets()

    def _llm_assets(self) -> Measured:
        command = [sys.executable, "-m", "llm_assets.cli.main", "run", MODEL, "--tenant", TENANT]
        return measure(command, env=self.env, cwd=ROOT, log=self.log, mark=self.folder)

    def down(self) -> None:
        subprocess.run(
            [sys.executable, "-m", "llm_assets.cli.main", "down"],
            env=self.env,
            cwd=ROOT,
            check=True,
            capture_output=True,
        )

    def script(self, number: int) -> Measured:
        folder = self.folder / f"script-{number}"
        folder.mkdir()
        self._write_script(folder)
        return measure(
            ["bash", str(folder / "script.sh")], env=self.env, cwd=folder, log=self.log, mark=self.folder
        )

    def _write_script(self, folder: Path) -> None:
        store = self.home / "store"
        base = _only(store / "base_models" / load_catalog(self.catalog).models[MODEL].base_model)
        dataset = _only(store / "datasets" / TENANT / MODEL)
        catalog = load_catalog(self.catalog)
        template = catalog.base_models[catalog.models[MODEL].base_model].template
        recipe = catalog.recipe_for(TENANT, MODEL).arguments
        common = {"model_name_or_path": str(base), "template": template}
        float32 = {"model_name_or_path": str(self.folder / "float32")}
        data = {"dataset_dir": str(dataset), "dataset": "train", "eval_dataset": "held_out"}
        train = (
            recipe
            | common
            | float32
            | data
            | {"do_train": True, "output_dir": "adapter", "report_to": "none"}
        )
        export = common | {
            "adapter_name_or_path": "adapter",
            "export_dir": "merged",
            "finetuning_type": "lora",
        }
        (folder / "train.yaml").write_text(json.dumps(train))
        (folder / "export.yaml").write_text(json.dumps(export))
        (folder / "script.sh").write_text(self._script(catalog.models[MODEL]))

    def _script(self, model: Any) -> str:
        train, serve = (engine_python(self.engines, name).parent for name in ("train", "serve"))  # type: ignore[arg-type]
        question = json.dumps(
            {
                "model": "m",
                "messages": [{"role": "user", "content": model.known_questions[0]}],
                "temperature": 0,
                "max_tokens": 32,
            }
        )
        return f"""set -euo pipefail
export PATH={train}:$PATH HF_HUB_OFFLINE=1 DISABLE_VERSION_CHECK=1 OMP_WAIT_POLICY=PASSIVE
llamafactory-cli train train.yaml
llamafactory-cli export export.yaml
export OMP_NUM_THREADS=1 VLLM_CPU_OMP_THREADS_BIND=nobind TORCH_COMPILE_DISABLE=1 TMPDIR=$PWD \\
  VLLM_ENABLE_V1_MULTIPROCESSING=0
{serve}/vllm serve merged --served-model-name m --host 127.0.0.1 --port 8917 --dtype bfloat16 \\
  --max-model-len {model.serving.max_model_len} --enforce-eager \\
  --kv-cache-memory-bytes {model.serving.kv_cache_mib}M --max-num-seqs {model.serving.max_num_seqs} &
server=$!
trap 'kill $server; wait $server || true' EXIT
until curl -sf http://127.0.0.1:8917/health; do kill -0 $server; sleep 0.2; done
curl -sf http://127.0.0.1:8917/v1/chat/completions -H 'Content-Type: application/json' -d '{question}'
"""


def _only(folder: Path) -> Path:
    return next(version for version in folder.iterdir() if not version.name.startswith("."))


if __name__ == "__main__":
    main()
