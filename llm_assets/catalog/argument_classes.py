"""Every argument of `llamafactory-cli train`, classified: what the platform does with it, and why.

`served` reaches LLaMA-Factory as it is written. `platform` is the platform's own (`platform_keys`).
`refused` is a mistake with any other value than its default. `without effect` is taken and left out: it
changes no training here, so changing it trains nothing anew.

A test walks this table against the engine's own list: an argument of a new version has no class until
somebody gives it one. What is refused only for one of its values, or for a package that is missing, stands in
`combinations` and `engine_packages`.
"""

from typing import Any, Literal

from llm_assets.catalog.arguments import arguments
from llm_assets.catalog.mistakes import Problem
from llm_assets.catalog.platform_keys import PLATFORM_KEYS

Use = Literal["served", "platform", "refused", "without effect"]

SERVED = {
    "what is trained": """
        additional_target finetuning_type freeze_language_model freeze_multi_modal_projector
        freeze_trainable_layers freeze_vision_tower lora_alpha lora_dropout lora_rank lora_target
        loraplus_lr_embedding loraplus_lr_ratio pissa_convert pissa_init pissa_iter stage use_dora
        use_llama_pro use_rslora
    """,
    "the loss": """
        asft_alpha dpo_label_smoothing eaft_alpha ignore_pad_token_for_loss kto_chosen_weight
        kto_rejected_weight label_smoothing_factor ld_alpha mask_history moe_aux_loss_coef
        neftune_noise_alpha pref_bco_weight pref_beta pref_ftx pref_loss simpo_gamma train_on_prompt
        use_asft_loss use_dft_loss use_eaft_loss
    """,
    "rows and tokens": """
        add_special_tokens add_tokens cutoff_len data_seed dataloader_drop_last dataloader_num_workers
        dataloader_persistent_workers dataloader_pin_memory dataloader_prefetch_factor default_system
        disable_shuffling enable_thinking init_special_tokens length_column_name max_samples neat_packing
        packing preprocessing_batch_size preprocessing_num_workers preserve_thinking resize_vocab
        split_special_tokens tool_format train_sampling_strategy use_fast_tokenizer
    """,
    "optimizer and schedule": """
        adam_beta1 adam_beta2 adam_epsilon apollo_layerwise apollo_proj apollo_proj_type apollo_rank
        apollo_scale apollo_scale_front apollo_scale_type apollo_target apollo_update_interval
        auto_find_batch_size badam_mask_mode badam_mode badam_start_block badam_switch_interval
        badam_switch_mode badam_update_ratio badam_verbose galore_layerwise galore_proj_type galore_rank
        galore_scale galore_target galore_update_interval gradient_accumulation_steps learning_rate
        lr_scheduler_kwargs lr_scheduler_type max_grad_norm max_steps num_train_epochs optim optim_args
        optim_target_modules per_device_eval_batch_size per_device_train_batch_size seed use_adam_mini
        use_apollo use_badam use_galore use_muon warmup_ratio warmup_steps weight_decay
    """,
    "evaluation": """
        batch_eval_metrics compute_accuracy early_stopping_steps eval_accumulation_steps eval_delay
        eval_do_concat_batches eval_on_start eval_steps eval_strategy eval_use_gather_object
        greater_is_better include_for_metrics load_best_model_at_end metric_for_best_model
        prediction_loss_only
    """,
    "checkpoints and logs": """
        debug ignore_data_skip include_effective_tokens_per_second log_level logging_first_step
        logging_steps logging_strategy print_param_status restore_callback_states_from_checkpoint
        save_steps save_strategy save_total_limit skip_memory_metrics
    """,
    "speed, memory and precision": """
        accelerator_config bf16 bf16_full_eval deepspeed disable_gradient_checkpointing
        double_quantization enable_liger_kernel flash_attn fp16 fp16_full_eval fp8 fp8_backend
        full_determinism gradient_checkpointing gradient_checkpointing_kwargs liger_kernel_config
        low_cpu_mem_usage mixture_of_depths pure_bf16 quantization_bit quantization_method
        quantization_type tf32 torch_compile torch_compile_backend torch_compile_mode
        torch_empty_cache_steps upcast_layernorm upcast_lmhead_output use_cache use_hyper_parallel use_kt
        use_liger_kernel use_mca use_reentrant_gc use_unsloth use_unsloth_gc kt_lora_expert_intermediate_size
        kt_lora_expert_num kt_use_lora_experts
    """,
}
_ONE_PROCESS = "the platform trains in one process on one device"
REFUSED = {
    _ONE_PROCESS: "fp8_enable_fsdp_float8_all_gather fsdp fsdp_config parallelism_config",
    "it is for inference: LLaMA-Factory trains on no model that is spread over devices": """
        quantization_device_map
    """,
    "LLaMA-Factory's collators name the columns": "label_names",
    "traces of a profiler are not kept": """
        enable_torch_profiler profile_modules profiler_active_steps profiler_profile_memory
        profiler_record_shapes profiler_repeat profiler_wait_steps profiler_warmup_steps
        profiler_with_stack
    """,
    "a random model would be trained, and the adapter then merged into the base model's weights": """
        train_from_scratch
    """,
    "within the base model's positions LLaMA-Factory switches it off, and beyond them it fails (transformers "
    "takes whole numbers of positions alone)": "rope_scaling",
    "the prepared dataset is a local file, which LLaMA-Factory cannot stream": "streaming",
    "LLaMA-Factory's code for it runs on transformers 4.45 to 4.47 alone": "shift_attn",
    "they are kernels of LLaMA-Factory's unreleased version 1, for Ascend NPUs": "use_v1_kernels",
}
WITHOUT_EFFECT = {
    _ONE_PROCESS: """
        average_tokens_across_devices data_shared_file_system ddp_backend ddp_broadcast_buffers
        ddp_bucket_cap_mb ddp_find_unused_parameters ddp_static_graph ddp_timeout log_level_replica
        log_on_each_node save_on_each_node
    """,
    "a training has one dataset and one held-out part": """
        buffer_size eval_on_each_dataset mix_strategy
    """,
    "the platform trains on text": """
        audio_sampling_rate crop_to_patches image_do_pan_and_scan image_max_pixels image_min_pixels
        use_audio_in_video video_fps video_max_pixels video_maxlen video_min_pixels
    """,
    "a training generates no text; who asks the model chooses these": """
        do_sample eval_num_beams generation_max_length generation_num_beams length_penalty max_length
        max_new_tokens num_beams repetition_penalty skip_special_tokens sortish_sampler temperature top_k
        top_p
    """,
    "vLLM serves the model, by the model's `serving:`": """
        infer_backend infer_dtype sglang_config sglang_lora_backend sglang_maxlen sglang_mem_fraction
        sglang_tp_size use_kv_cache vllm_config vllm_enforce_eager vllm_gpu_util vllm_max_lora_rank
        vllm_maxlen
    """,
    "it is for stage ppo, or for finetuning_type oft or freeze": """
        freeze_extra_modules freeze_trainable_modules module_dropout oft_block_size oft_rank oft_target
        ppo_buffer_size ppo_epochs ppo_score_norm ppo_target ppo_whiten_rewards
        ref_model_quantization_bit reward_model_quantization_bit reward_model_type
    """,
    "every adapter is a new one": "create_new_adapter",
    "LLaMA-Factory sets it itself": "remove_unused_columns",
}


def _by_name(table: dict[str, str]) -> dict[str, str]:
    return {name: why for why, names in table.items() for name in names.split()}


_AREAS, _REFUSED, _WITHOUT_EFFECT = map(_by_name, (SERVED, REFUSED, WITHOUT_EFFECT))


def use_of(name: str) -> Use:
    """What the platform does with an argument. Raises KeyError for one that nobody has classified."""
    if name in PLATFORM_KEYS:
        return "platform"
    if name in _REFUSED:
        return "refused"
    if name in _WITHOUT_EFFECT:
        return "without effect"
    if name in _AREAS:
        return "served"
    raise KeyError(name)


def reason_of(name: str) -> str:
    """Why an argument is refused or has no effect."""
    return (_REFUSED | _WITHOUT_EFFECT)[name]


def refusal(name: str, value: Any) -> Problem | None:
    """What is wrong with setting this argument at all; nothing where the value changes nothing."""
    if name not in _REFUSED or value in (None, "", [], {}, arguments()[name].default):
        return None
    return Problem(place=(name,), problem=f"not supported: {_REFUSED[name]}", valid="leave it out")
