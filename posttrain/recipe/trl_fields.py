"""What becomes of each field of TRL's config classes in a stage's `args`.

A field is a key of the stage (`stage_sections`), decided by another key (`library_fields.DECIDED_ELSEWHERE`), refused
for what it does (`library_fields.REFUSED`), refused for doing nothing (`WITHOUT_EFFECT`), or passed on (`PASSED_ON`).
A test goes over all fields of the installed TRL: after an upgrade each new one gets its place here.
"""

from __future__ import annotations

TOKENISED = "demonstrations are token ids and labels before TRL sees them"
ORDER = "the order of the rows is the seed's, which a resumed run goes on with"
EVALUATED = "no trainer is given rows to evaluate on; the section `evaluate` says when and how"
OTHER_ENGINE = "it is for TRL's own vLLM, and posttrain has an engine of its own"
DRAWN = "a step's rows are drawn once its mix is known, not by TRL's data loader"

_EVALUATION = dict.fromkeys(
    (
        "batch_eval_metrics", "bf16_full_eval", "do_predict", "do_train", "eval_accumulation_steps", "eval_delay",
        "eval_do_concat_batches", "eval_on_start", "eval_use_gather_object", "fp16_full_eval", "greater_is_better",
        "include_for_metrics", "label_names", "load_best_model_at_end", "metric_for_best_model",
        "per_device_eval_batch_size", "prediction_loss_only",
    ),
    EVALUATED,
)  # fmt: skip
_ORDER = dict.fromkeys(("length_column_name", "train_sampling_strategy"), ORDER)
_LOADER = (
    "dataloader_in_order", "dataloader_multiprocessing_context", "dataloader_num_workers",
    "dataloader_persistent_workers", "dataloader_pin_memory", "dataloader_prefetch_factor",
)  # fmt: skip

WITHOUT_EFFECT: dict[str, dict[str, str]] = {
    "trl.SFTConfig": {
        **_EVALUATION,
        **_ORDER,
        **dict.fromkeys(
            (
                "assistant_only_loss", "completion_only_loss", "dataset_kwargs", "dataset_text_field",
                "truncation_mode",
            ),
            TOKENISED,
        ),
        "dataloader_drop_last": "the rows are laid out for whole steps",
        "eval_packing": EVALUATED,
        "packing_strategy": "packing is refused, too; warmup.packed says whether batches have padding",
        "shuffle_dataset": ORDER,
    },
    "trl.GRPOConfig": {
        **_EVALUATION,
        **_ORDER,
        **dict.fromkeys((*_LOADER, "dataloader_drop_last", "include_num_input_tokens_seen"), DRAWN),
        **dict.fromkeys(
            (
                "vllm_group_port", "vllm_model_impl", "vllm_structured_outputs_regex", "vllm_tensor_parallel_size",
            ),
            OTHER_ENGINE,
        ),
        "label_smoothing_factor": "the SFT half is the plain likelihood, and the GRPO half has no labels",
        "log_multimodal": "the rows of a recipe are text",
        "max_tool_calling_iterations": "a recipe names no tools",
        "num_generations_eval": EVALUATED,
    },
}  # fmt: skip
"""Config class -> fields that a run pays no heed to, and why."""

_BOTH = {
    "adam_beta1", "adam_beta2", "adam_epsilon", "bf16", "ddp_broadcast_buffers", "ddp_bucket_cap_mb",
    "ddp_find_unused_parameters", "ddp_static_graph", "debug", "fp16", "full_determinism", "gradient_checkpointing",
    "gradient_checkpointing_kwargs", "liger_kernel_config", "log_level", "log_level_replica", "log_on_each_node",
    "lr_scheduler_kwargs", "neftune_noise_alpha", "optim", "optim_args", "optim_target_modules", "pad_to_multiple_of",
    "router_aux_loss_coef", "save_on_each_node", "skip_memory_metrics", "tf32", "torch_compile",
    "torch_compile_backend", "torch_compile_mode", "torch_empty_cache_steps", "use_cache", "use_liger_kernel",
}  # fmt: skip

PASSED_ON: dict[str, set[str]] = {
    "trl.SFTConfig": _BOTH | set(_LOADER) | {
        "activation_offloading", "dataset_num_proc", "eos_token", "include_num_input_tokens_seen",
        "label_smoothing_factor", "loss_type", "padding_free", "save_total_limit",
    },
    "trl.GRPOConfig": _BOTH | {
        "cache_implementation", "cast_lm_head_to_fp32", "chat_template_kwargs", "disable_dropout",
        "ds3_gather_for_generation", "entropy_coef_delta", "entropy_coef_max", "entropy_coef_min", "entropy_target",
        "generation_kwargs", "log_completions", "log_unique_prompts", "multi_objective_aggregation",
        "num_completions_to_print", "off_policy_mask_threshold", "ref_model_mixup_alpha", "ref_model_sync_steps",
        "sapo_temperature_neg", "sapo_temperature_pos", "shuffle_dataset", "sync_ref_model",
        "transformers_continuous_batching_config", "use_adaptive_entropy", "use_bias_correction_kl",
        "use_transformers_continuous_batching", "use_transformers_paged", "vespo_k_neg", "vespo_k_pos",
        "vespo_lambda_neg", "vespo_lambda_pos", "vllm_importance_sampling_cap", "vllm_importance_sampling_clip_max",
        "vllm_importance_sampling_clip_min", "vllm_importance_sampling_correction", "vllm_importance_sampling_mode",
    },
}  # fmt: skip
"""Config class -> fields that a recipe may set, as TRL means them."""
