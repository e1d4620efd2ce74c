"""`llamaboard_config.yaml`, as LLaMA-Factory's web UI saves it, translated to plain arguments.

Follows `_parse_train_args` of llamafactory/webui/runner.py (0.9.5) step by step. Values are passed on as
the UI wrote them (a learning rate is a text there); the recipe's own check turns them into numbers.
Different on purpose: paths are not built, because the platform replaces them; image and video settings
are passed on when someone changed them, where the UI looks up whether the model takes pictures.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_assets.catalog.mistakes import Problem, did_you_mean
from llm_assets.catalog.web_ui_controls import INITIAL, STAGES_BY_TITLE, WITHOUT_EFFECT
from llm_assets.datasets.limits import is_too_deep

_PICTURES = (
    "freeze_vision_tower",
    "freeze_multi_modal_projector",
    "freeze_language_model",
    "image_max_pixels",
    "image_min_pixels",
    "video_max_pixels",
    "video_min_pixels",
)


@dataclass(frozen=True, kw_only=True)
class Translated:
    """Plain arguments, and which control of the web UI (`train.lora_rank`) each of them comes from."""

    arguments: dict[str, object]
    controls: dict[str, str]
    problems: tuple[Problem, ...]


def is_web_ui_form(written: Mapping[str, object]) -> bool:
    """Whether a file is a `llamaboard_config.yaml` rather than plain arguments."""
    return any(key.startswith(("top.", "train.", "eval.")) for key in written)


def translate(written: Mapping[str, object]) -> Translated:
    """The training that the web UI would start from these settings."""
    problems = [_unknown(key) for key in written if key not in INITIAL and key not in WITHOUT_EFFECT]
    form = _Form(written)
    problems += form.start()
    form.branches()
    return Translated(arguments=form.arguments, controls=form.controls, problems=tuple(problems))


def _unknown(key: str) -> Problem:
    if key.startswith("eval."):
        return Problem(place=(key,), problem="settings of an evaluation", valid="an experiment is a training")
    otherwise = "the web UI of llamafactory 0.9.5 has no such setting"
    return Problem(
        place=(key,), problem="unknown setting", valid=did_you_mean(key, INITIAL, otherwise=otherwise)
    )


class _Form:
    """The filled-in form, read control by control while the arguments grow."""

    def __init__(self, written: Mapping[str, object]) -> None:
        self._written = written
        self.arguments: dict[str, object] = {}
        self.controls: dict[str, str] = {}

    def _get(self, control: str) -> Any:
        return self._written.get(control, INITIAL[control])

    def _set(self, argument: str, control: str, value: Any) -> None:
        self.arguments[argument] = value
        self.controls[argument] = control

    def _take(self, *arguments: str) -> None:
        """Arguments that are called like their control in the training tab."""
        for argument in arguments:
            self._set(argument, f"train.{argument}", self._get(f"train.{argument}"))

    def start(self) -> list[Problem]:
        """What every training has, and the JSON of additional arguments that goes over it."""
        booster, compute = self._get("top.booster"), self._get("train.compute_type")
        stage, scaling = self._get("train.training_stage"), self._get("top.rope_scaling")
        self.arguments |= {"preprocessing_num_workers": 16, "ddp_timeout": 180000000}
        self.arguments |= {"include_num_input_tokens_seen": True, "trust_remote_code": True}
        self._set("stage", "train.training_stage", STAGES_BY_TITLE.get(str(stage), stage))
        self._set("model_name_or_path", "top.model_name", self._get("top.model_name"))
        self._set("finetuning_type", "top.finetuning_type", self._get("top.finetuning_type"))
        self._set("template", "top.template", self._get("top.template"))
        self._set("rope_scaling", "top.rope_scaling", None if scaling == "none" else scaling)
        self._set("flash_attn", "top.booster", "fa2" if booster == "flashattn2" else "auto")
        self._set("use_unsloth", "top.booster", booster == "unsloth")
        self._set("enable_liger_kernel", "top.booster", booster == "liger_kernel")
        self._set("dataset", "train.dataset", self._get("train.dataset"))
        self._set("per_device_train_batch_size", "train.batch_size", self._get("train.batch_size"))
        self._set("neftune_noise_alpha", "train.neftune_alpha", self._get("train.neftune_alpha") or None)
        for kind in ("fp16", "bf16", "pure_bf16"):
            self._set(kind, "train.compute_type", compute == kind)
        self._take("dataset_dir", "cutoff_len", "learning_rate", "num_train_epochs", "max_samples")
        self._take("gradient_accumulation_steps", "lr_scheduler_type", "max_grad_norm", "logging_steps")
        self._take("save_steps", "warmup_steps", "neat_packing", "train_on_prompt", "mask_history")
        self._take("resize_vocab", "use_llama_pro", "enable_thinking", "report_to")
        self._take("use_galore", "use_apollo", "use_badam", "use_swanlab")
        packing = self._get("train.packing") or self._get("train.neat_packing")
        self._set("packing", "train.packing", packing)
        return self._additional()

    def _additional(self) -> list[Problem]:
        control = "train.extra_args"
        try:
            additional = json.loads(self._get(control))
        except (TypeError, ValueError, RecursionError):
            additional = None
        if not isinstance(additional, dict) or is_too_deep(additional):
            valid = 'a JSON object in quotes, such as \'{"optim": "adamw_torch"}\''
            return [Problem(place=(control,), problem="not a JSON object", valid=valid)]
        for argument, value in additional.items():
            self._set(argument, control, value)
        return []

    def branches(self) -> None:
        """What depends on the kind of training."""
        finetuning_type, stage = self.arguments["finetuning_type"], self.arguments["stage"]
        if self._get("top.checkpoint_path"):
            self._set("adapter_name_or_path", "top.checkpoint_path", self._get("top.checkpoint_path"))
        if self._get("top.quantization_bit") != "none":
            self._set("quantization_bit", "top.quantization_bit", self._get("top.quantization_bit"))
            method = self._get("top.quantization_method")
            self._set("quantization_method", "top.quantization_method", method)
            self.arguments["double_quantization"] = True
        if finetuning_type == "freeze":
            self._take("freeze_trainable_layers", "freeze_trainable_modules")
        if finetuning_type == "lora":
            self._lora()
        if stage in ("dpo", "kto"):
            self._take("pref_beta", "pref_ftx", "pref_loss")
        self._pictures()
        self._optimizers()
        self._evaluation(str(stage))
        if self._get("train.ds_stage") != "none":
            offload = "offload_" if self._get("train.ds_offload") else ""
            self._set(
                "deepspeed", "train.ds_stage", f"ds_z{self._get('train.ds_stage')}_{offload}config.json"
            )

    def _lora(self) -> None:
        self._take("lora_rank", "lora_alpha", "lora_dropout", "create_new_adapter", "use_rslora", "use_dora")
        self._set(
            "loraplus_lr_ratio", "train.loraplus_lr_ratio", self._get("train.loraplus_lr_ratio") or None
        )
        self._set("pissa_init", "train.use_pissa", self._get("train.use_pissa"))
        self._set("pissa_convert", "train.use_pissa", self._get("train.use_pissa"))
        self._set("lora_target", "train.lora_target", self._get("train.lora_target") or "all")
        self._set(
            "additional_target", "train.additional_target", self._get("train.additional_target") or None
        )
        if self.arguments["use_llama_pro"]:
            self._take("freeze_trainable_layers")

    def _pictures(self) -> None:
        for argument in _PICTURES:
            control = f"train.{argument}"
            if self._get(control) != INITIAL[control]:
                self._set(argument, control, _pixels(self._get(control)))

    def _optimizers(self) -> None:
        if self.arguments["use_galore"]:
            self._take("galore_rank", "galore_update_interval", "galore_scale", "galore_target")
        if self.arguments["use_apollo"]:
            self._take("apollo_rank", "apollo_update_interval", "apollo_scale", "apollo_target")
        if self.arguments["use_badam"]:
            self._take("badam_mode", "badam_switch_mode", "badam_switch_interval", "badam_update_ratio")
        if self.arguments["use_swanlab"]:
            self._take(
                "swanlab_project", "swanlab_run_name", "swanlab_workspace", "swanlab_api_key", "swanlab_mode"
            )

    def _evaluation(self, stage: str) -> None:
        val_size = self._get("train.val_size")
        if isinstance(val_size, int | float) and val_size > 1e-6 and stage != "ppo":
            self._set("val_size", "train.val_size", val_size)
            self._set("eval_strategy", "train.val_size", "steps")
            self._set("eval_steps", "train.save_steps", self.arguments["save_steps"])
            batch_size = self.arguments["per_device_train_batch_size"]
            self._set("per_device_eval_batch_size", "train.batch_size", batch_size)


def _pixels(text: Any) -> Any:
    """`768*768` as a number; anything else as it is, for the recipe's check to judge."""
    sides = str(text).split("*")
    if len(sides) == 2 and all(side.strip().isdecimal() for side in sides):
        return int(sides[0]) * int(sides[1])
    return text
