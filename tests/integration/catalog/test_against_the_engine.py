"""What is written down about LLaMA-Factory against LLaMA-Factory itself."""

import json
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from llm_assets.catalog.recipes import check_arguments
from llm_assets.catalog.web_ui import translate
from llm_assets.catalog.yaml_files import read_yaml

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[3]
FORM = {
    **read_yaml(BytesIO((ROOT / "tests/unit/catalog/llamaboard_config.yaml").read_bytes())).value,
    "top.lang": "en",
    "top.model_path": "org/name",
    "train.output_dir": "run",
    "train.dataset": [],
}
CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"top.finetuning_type": "full"},
    {"train.training_stage": "DPO", "train.pref_loss": "orpo"},
    {"train.training_stage": "KTO", "train.compute_type": "pure_bf16"},
    {"train.training_stage": "Pre-Training", "train.val_size": 0},
    {"train.training_stage": "Reward Modeling", "train.compute_type": "fp16"},
    {"top.quantization_bit": "4", "top.rope_scaling": "yarn", "top.booster": "flashattn2"},
    {"top.booster": "unsloth", "train.neat_packing": True, "train.neftune_alpha": 5},
    {"top.booster": "liger_kernel", "train.use_pissa": True, "train.loraplus_lr_ratio": 2.5},
    {"train.use_galore": True, "top.finetuning_type": "full"},
    {"train.use_apollo": True, "top.finetuning_type": "full"},
    {"train.use_badam": True, "top.finetuning_type": "full"},
    {"train.use_llama_pro": True, "train.additional_target": "lm_head", "train.lora_target": ""},
    {"train.extra_args": '{"optim": "sgd", "finetuning_type": "full", "lora_rank": 3}'},
    {"train.ds_stage": "3", "train.ds_offload": True},
)
RUNNER = """
import json, sys
from llamafactory.webui.runner import Runner
class Controls:
    def get_elem_by_id(self, control): return control
forms = json.load(sys.stdin)
print("\\n" + json.dumps([Runner(Controls())._parse_train_args(form) for form in forms]))
"""


@pytest.fixture(scope="module")
def web_ui_arguments(train_python: Path) -> list[dict[str, Any]]:
    """What the web UI's own code makes of each form."""
    forms = json.dumps([{**FORM, **change} for change in CHANGES])
    ran = subprocess.run(
        [train_python, "-c", RUNNER], input=forms, capture_output=True, text=True, check=True
    )
    answers: list[dict[str, Any]] = json.loads(ran.stdout.splitlines()[-1])
    return answers


@pytest.mark.parametrize("case", range(len(CHANGES)), ids=lambda case: ",".join(CHANGES[case]) or "as it is")
def test_a_form_means_the_training_that_the_web_ui_would_start(
    web_ui_arguments: list[dict[str, Any]], case: int
) -> None:
    theirs = check_arguments(web_ui_arguments[case])
    ours = check_arguments(translate({**FORM, **CHANGES[case]}).arguments)
    assert ours.arguments == theirs.arguments
    assert ours.problems == theirs.problems


def test_the_list_of_arguments_and_templates_is_current(train_python: Path, tmp_path: Path) -> None:
    written = tmp_path / "recipe_arguments.json"
    module = "llm_assets.workers.recipe_arguments"
    subprocess.run([train_python, "-m", module, written], cwd=ROOT, capture_output=True, check=True)
    committed = ROOT / "llm_assets" / "catalog" / "recipe_arguments.json"
    assert written.read_text(encoding="utf-8") == committed.read_text(encoding="utf-8")
