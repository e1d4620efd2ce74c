"""Arguments of earlier versions, which recipes on the web still set: what each is called now, or why it went.

From the history of LLaMA-Factory's `hparams/` (0.1.4 to 0.9.5) and of transformers' `TrainingArguments`
(4.31 to 5.6), by comparing the fields of one version with those of the next.
"""

from dataclasses import dataclass

from llm_assets.catalog.mistakes import Problem
from llm_assets.catalog.platform_keys import PLATFORM_KEYS, platforms_reason


@dataclass(frozen=True, kw_only=True)
class Renamed:
    """`since` is the version without the old name; `now` the new name, None where there is none."""

    since: str
    now: str | None = None
    hint: str = ""


def _llamafactory(since: str, **names: str) -> dict[str, Renamed]:
    return {old: Renamed(since=f"LLaMA-Factory {since}", now=new) for old, new in names.items()}


def _gone(since: str, hint: str, *names: str) -> dict[str, Renamed]:
    return {old: Renamed(since=since, hint=hint) for old in names}


_LEAVE_OUT = "leave it out; nothing takes its place"

RENAMED: dict[str, Renamed] = {
    **_llamafactory("0.1.4", prompt_template="template"),
    **_llamafactory("0.1.6", dev_ratio="val_size"),
    **_llamafactory("0.2.0", max_source_length="cutoff_len", max_target_length="cutoff_len"),
    **_llamafactory("0.2.1", **dict.fromkeys(("hf_auth_token", "use_auth_token"), "hf_hub_token")),
    **_llamafactory("0.3.0", dpo_ref_model="ref_model", dpo_ref_model_checkpoint="ref_model_adapters"),
    **_llamafactory("0.4.0", neft_alpha="neftune_noise_alpha", system_prompt="default_system"),
    **_llamafactory("0.4.0", checkpoint_dir="adapter_name_or_path"),
    **_llamafactory("0.4.0", ref_model_checkpoint="ref_model_adapters"),
    **_llamafactory("0.4.0", reward_model_checkpoint="reward_model_adapters"),
    **_llamafactory("0.6.0", sft_packing="packing", lora_bf16_mode="pure_bf16"),
    **_llamafactory("0.6.2", cache_path="tokenized_path"),
    **_llamafactory("0.7.1", badam_switch_block_every="badam_switch_interval"),
    **_llamafactory("0.7.1", name_module_trainable="freeze_trainable_modules"),
    **_llamafactory("0.7.1", num_layer_trainable="freeze_trainable_layers"),
    **_llamafactory("0.8.0", dpo_beta="pref_beta", dpo_ftx="pref_ftx", dpo_loss="pref_loss"),
    **_llamafactory("0.8.0", orpo_beta="pref_beta"),
    **_llamafactory("0.8.2", vllm_dtype="infer_dtype"),
    **_llamafactory("0.9.2", image_dir="media_dir"),
    **_llamafactory("0.9.2", image_resolution="image_max_pixels", video_resolution="video_max_pixels"),
    **_llamafactory("0.9.2", train_mm_proj_only="freeze_language_model"),
    **_llamafactory("0.9.3", new_special_tokens="add_special_tokens"),
    **_gone("LLaMA-Factory 0.1.7", _LEAVE_OUT, "source_prefix"),
    **_gone("LLaMA-Factory 0.1.8", _LEAVE_OUT, "padding_side"),
    **_gone("LLaMA-Factory 0.4.0", "leave it out; the platform resumes by itself", "resume_lora_training"),
    **_gone("LLaMA-Factory 0.6.0", _LEAVE_OUT, "disable_version_checking"),
    **_gone("LLaMA-Factory 0.6.1", "leave it out; the platform records runs", "ppo_logger"),
    **_gone("LLaMA-Factory 0.8.3", "cutoff_len alone counts", "reserved_label_len"),
    **_gone("LLaMA-Factory 0.8.3", "leave it out; the landing zone is the dataset", "split"),
    **_gone("LLaMA-Factory 0.9.0", "leave it out; the platform trains on text", "visual_inputs"),
    **_gone(
        "LLaMA-Factory 0.9.5",
        "leave it out; KTransformers is configured in another way now",
        *("chunk_size", "cpu_infer", "mode"),
        *("kt_force_think", "kt_maxlen", "kt_mode", "kt_optimize_rule", "kt_use_cuda_graph"),
    ),
    **_gone(
        "LLaMA-Factory 0.9.5",
        "leave it out; the platform starts the training",
        *("placement_strategy", "ray_run_name", "ray_storage_filesystem", "ray_storage_path"),
        "resources_per_worker",
    ),
    **{
        old: Renamed(since="transformers 5", now=new)
        for old, new in {
            "adafactor": "optim",
            "evaluation_strategy": "eval_strategy",
            "fsdp_min_num_params": "fsdp_config",
            "fsdp_transformer_layer_cls_to_wrap": "fsdp_config",
            "group_by_length": "train_sampling_strategy",
            "include_inputs_for_metrics": "include_for_metrics",
            "include_tokens_per_second": "include_num_input_tokens_seen",
            "no_cuda": "use_cpu",
            "per_gpu_eval_batch_size": "per_device_eval_batch_size",
            "per_gpu_train_batch_size": "per_device_train_batch_size",
            "push_to_hub_model_id": "hub_model_id",
            "push_to_hub_organization": "hub_model_id",
            "push_to_hub_token": "hub_token",
            "dispatch_batches": "accelerator_config",
            "split_batches": "accelerator_config",
            "torchdynamo": "torch_compile_backend",
            "tpu_metrics_debug": "debug",
            "xpu_backend": "ddp_backend",
        }.items()
    },
    **_gone(
        "transformers 5",
        "leave it out; `bf16` and `fp16` choose the precision",
        *("fp16_backend", "fp16_opt_level", "half_precision_backend"),
    ),
    **_gone("transformers 5", "leave it out; weights are always safetensors", "save_safetensors"),
    **_gone(
        "transformers 5",
        _LEAVE_OUT,
        *("jit_mode_eval", "mp_parameters", "past_index", "ray_scope", "sharded_ddp", "tpu_num_cores"),
        *("use_ipex", "use_legacy_prediction_loop", "use_mps_device"),
    ),
}
_VALUES = {
    "adafactor": "optim: adafactor",
    "group_by_length": "train_sampling_strategy: group_by_length",
    "train_mm_proj_only": "freeze_language_model: true with freeze_multi_modal_projector: false",
}
"""What to write where the new name alone does not say it."""


def renamed(name: str) -> Problem | None:
    """What became of an argument that an earlier version had; None for one that none had."""
    known = RENAMED.get(name)
    if known is None:
        return None
    if known.now is None:
        problem, valid = f"there is no such key since {known.since}", known.hint
    else:
        problem, valid = f"it has another name since {known.since}", f"write {_VALUES.get(name, known.now)}"
        if known.now in PLATFORM_KEYS:
            valid = f"leave it out; it is {known.now}, and {platforms_reason(known.now, None)}"
    return Problem(place=(name,), problem=problem, valid=valid)
