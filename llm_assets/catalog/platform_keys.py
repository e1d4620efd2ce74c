"""The LLaMA-Factory arguments that are the platform's own: paths, data, reporting, how a run starts.

A model's recipe that sets one is refused; in an experiment, where LLaMA-Factory's web UI always writes
them, they are replaced, and the run says which. A value that changes nothing (null; LLaMA-Factory's
default, unless it is a path; what the platform does anyway) is left out without a word.
"""

from typing import Any

from llm_assets.catalog.arguments import arguments

_PATH = "the platform sets every path"
_DATA = "the platform takes the tenant's landing zone and holds rows out by the model's `dataset:`"
_RUN = "the platform decides how a training starts, resumes and ends"
_REPORT = "the platform records runs in Dagster and MLflow, and a catalog holds no secrets"
_EXPORT = "the platform merges and publishes what was trained"
_MODEL = "the base model's file decides that"
_CODE = "the platform runs no code out of model folders"

_KEYS_BY_REASON = {
    _PATH: """
        adapter_folder adapter_name_or_path cache_dir dataset_dir generation_config hyper_parallel_args
        kt_expert_checkpoint_path kt_weight_path logging_dir media_dir model_name_or_path
        new_special_tokens_config offload_folder output_dir profiler_output_dir ref_model ref_model_adapters
        resume_from_checkpoint reward_model reward_model_adapters swanlab_logdir tokenized_path
    """,
    _DATA: "dataset eval_dataset interleave_probs val_size",
    _RUN: """
        disable_tqdm do_eval do_predict do_train enable_jit_checkpoint include_num_input_tokens_seen
        local_rank logging_nan_inf_filter
        master_addr master_port overwrite_cache overwrite_output_dir plot_loss predict_with_generate
        ray_init_kwargs ray_num_workers save_only_model use_cpu
    """,
    _REPORT: """
        hf_hub_token hub_always_push hub_model_id hub_private_repo hub_revision hub_strategy hub_token
        ms_hub_token om_hub_token project push_to_hub report_to run_name swanlab_api_key swanlab_lark_secret
        swanlab_lark_webhook_url swanlab_mode swanlab_project swanlab_run_name swanlab_workspace
        trackio_bucket_id trackio_space_id trackio_static_space_id use_swanlab
    """,
    _EXPORT: """
        export_device export_dir export_hub_model_id export_legacy_format export_quantization_bit
        export_quantization_dataset export_quantization_maxlen export_quantization_nsamples export_size
    """,
    _MODEL: "model_revision template",
    _CODE: "trust_remote_code",
}
_REASONS = {name: reason for reason, names in _KEYS_BY_REASON.items() for name in names.split()}

# These take a mapping, which is the recipe's, or the path of a file, which is the platform's.
_MAPPING_OR_PATH = frozenset({"accelerator_config", "deepspeed", "fsdp_config"})

_WHAT_HAPPENS_ANYWAY: dict[str, tuple[Any, ...]] = {
    "disable_tqdm": (True, False),
    "do_eval": (True,),
    "do_train": (True,),
    "include_num_input_tokens_seen": (True, "all", "non_padding"),
    "overwrite_cache": (True,),
    "overwrite_output_dir": (True,),
    "plot_loss": (True,),
    "report_to": (["none"], []),
}

PLATFORM_KEYS = frozenset(_REASONS)
"""Every argument that is the platform's whatever its value."""


def platforms_reason(name: str, value: Any) -> str | None:
    """Why the platform owns this argument; None when a recipe may set it."""
    if name in _MAPPING_OR_PATH and isinstance(value, str) and not value.lstrip().startswith("{"):
        return _PATH
    return _REASONS.get(name)


def changes_nothing(name: str, value: Any) -> bool:
    """Whether leaving this argument of the platform's out makes no difference."""
    if _REASONS.get(name) == _PATH or name in _MAPPING_OR_PATH:
        return value in (None, "")
    return value in (None, "", arguments()[name].default, *_WHAT_HAPPENS_ANYWAY.get(name, ()))
